-- Returns the last applied row of the outbox for each of these entries that exists. The locks make the commit of this transaction wait for
-- the disk and for a synchronous standby, although it skips all rows: so what it has found is as durable as its own commit.
select entry.user_id, entry.ride_id, entry.last_id
from unnest($1::text[], $2::text[]) as wanted (user_id, ride_id)
join remote_rides entry on entry.user_id = wanted.user_id and entry.ride_id = wanted.ride_id
for no key update of entry
