-- Returns the current snapshots of rides.
select *
from ride_snapshots
where ride_id = any ($1::text[])
