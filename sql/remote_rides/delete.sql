-- Deletes the entries of rides that their shards have deleted.
delete from remote_rides
using unnest($1::text[], $2::text[]) as deleted (user_id, ride_id)
where remote_rides.user_id = deleted.user_id
  and remote_rides.ride_id = deleted.ride_id
