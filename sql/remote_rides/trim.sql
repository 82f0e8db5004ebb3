-- Deletes at most `$1` entries of rides that were deleted a day ago. No replica sends rows that it has read before that.
delete from remote_rides
using (select user_id, ride_id
       from remote_rides
       where deleted_at <= statement_timestamp() - interval '1 day'
       order by deleted_at
       limit $1::bigint) as expired
where remote_rides.user_id = expired.user_id
  and remote_rides.ride_id = expired.ride_id
