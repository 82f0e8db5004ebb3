-- Returns the current and former participants of rides (rows with a `from_seq`), in order of joining, and their watermarks (rows
-- with `delivered_seq`).
select ride_id, user_id, role, from_seq, until_seq, null::bigint as delivered_seq, null::bigint as read_seq
from participants
where ride_id = any ($1::text[])
union all
select ride_id, user_id, role, null, null, delivered_seq, read_seq
from receipts
where ride_id = any ($1::text[])
order by from_seq
