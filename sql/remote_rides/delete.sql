-- Marks the entries of rides that their shards have deleted. They are no longer listed. They keep the last applied row of the outbox,
-- because another replica may send earlier rows again.
update remote_rides
set last_id    = deleted.last_id,
    until_seq  = coalesce(remote_rides.until_seq, remote_rides.from_seq),
    is_over    = true,
    is_read    = true,
    deleted_at = statement_timestamp()
from unnest($1::text[], $2::text[], $3::bigint[]) as deleted (user_id, ride_id, last_id)
where remote_rides.user_id = deleted.user_id
  and remote_rides.ride_id = deleted.ride_id
