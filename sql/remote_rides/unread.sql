-- Returns the rides of other shards in which a user may have unread messages.
select ride_id
from remote_rides
where user_id = $1::text
  and until_seq is null
  and (is_over and is_read) is not true
