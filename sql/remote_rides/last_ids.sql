-- Returns the last applied row of the outbox for each of these entries that exists.
select entry.user_id, entry.ride_id, entry.last_id
from unnest($1::text[], $2::text[]) as wanted (user_id, ride_id)
join remote_rides entry on entry.user_id = wanted.user_id and entry.ride_id = wanted.ride_id
