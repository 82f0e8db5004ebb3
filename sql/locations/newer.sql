-- Returns locations that are newer than those a replica has, for the rides that it has subscribers of.
select location.ride_id, location.driver_id, location.version, location.seq, location.data
from unnest($1::text[], $2::bigint[]) as known (ride_id, version)
join ride_locations location on location.ride_id = known.ride_id and location.version > known.version
