-- `coalesce`, lest the index of present participants by user seem to fit: its key does not begin with the ride.
select ride_id, user_id, role, from_seq
from participants
where ride_id = any ($1::text[])
  and coalesce(until_seq, 0) = 0
