-- How a ride was when somebody left it.
select left_status, left_updated_at
from participants
where ride_id = $1::text
  and user_id = $2::text
  and until_seq = $3::bigint
