-- What somebody has said and not taken back, after the message `$2`.
select id, ride_id
from messages
where sender_id = $1::text
  and id > $2::uuid
  and deleted_at is null
order by id
limit $3::bigint
