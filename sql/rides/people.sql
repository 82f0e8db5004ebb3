-- Who is or was on rides (rows with a `from_seq`), by when they joined, and how far their logs have been received and read
-- (rows with watermarks).
select ride_id, user_id, role, from_seq, until_seq, null::bigint as delivered_seq, null::bigint as read_seq
from participants
where ride_id = any ($1::text[])
union all
select ride_id, user_id, role, null, null, delivered_seq, read_seq
from receipts
where ride_id = any ($1::text[])
order by from_seq
