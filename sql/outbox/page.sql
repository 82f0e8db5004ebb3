-- Returns the first rows for a shard.
select id, user_id, ride_id, type, data, trace, from_seq, until_seq, joined_at, status, is_ended, is_over, is_read
from outbox
where shard = $1::bigint
order by id
limit $2::bigint
