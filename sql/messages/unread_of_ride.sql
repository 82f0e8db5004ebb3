-- Others' undeleted messages after a read mark.
select count(*) as unread
from messages
where ride_id = $1::text
  and seq > $2::bigint
  and sender_id <> $3::text
  and deleted_at is null
