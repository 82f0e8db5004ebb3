-- Others' undeleted messages after a read mark.
select count(*) as unread
from messages
where ride_id = $1
  and seq > $2
  and sender_id <> $3
  and deleted_at is null
