-- Stores locations, one for each ride. A location older than the stored one changes nothing, nor does a late one of a driver who
-- has been replaced. The version grows beyond the previous one, and also beyond those of a table that a crash has emptied. A
-- stored time in the future (of a clock that was ahead) does not block later locations.
insert into ride_locations (ride_id, driver_id, version, seq, at, data)
select new.ride_id, new.driver_id, extract(epoch from clock_timestamp()) * 1000000, new.seq, new.at, new.data
from unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[], $5::text[]) as new (ride_id, driver_id, seq, at, data)
order by new.ride_id
on conflict (ride_id) do update
    set driver_id = excluded.driver_id,
        version   = greatest(ride_locations.version + 1, excluded.version),
        seq       = excluded.seq,
        at        = excluded.at,
        data      = excluded.data
    where (excluded.driver_id = ride_locations.driver_id and excluded.at >= least(ride_locations.at, clock_timestamp()))
       or (excluded.driver_id <> ride_locations.driver_id and excluded.seq > ride_locations.seq)
returning ride_id, version
