-- Who is on rides (rows with a `from_seq`), and how far their logs have been received and read (rows with marks).
-- `coalesce`, lest the index of present participants by user seem to fit: its key does not begin with the ride.
select ride_id, user_id, role, from_seq, null::bigint as delivered_seq, null::bigint as read_seq
from participants
where ride_id = any ($1::text[])
  and coalesce(until_seq, 0) = 0
union all
select ride_id, user_id, role, null, delivered_seq, read_seq
from receipts
where ride_id = any ($1::text[])
