select ride_id, user_id, role, from_seq
from participants
where ride_id = any ($1::text[])
  and until_seq is null
