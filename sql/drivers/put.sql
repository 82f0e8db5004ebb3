-- Stores the availability of drivers. A row whose availability and coordinates stay the same is not updated (its `at` neither) and not
-- returned. `version` is the clock in microseconds, but at least the previous version + 1; see `newer.sql`. The rows are locked in one
-- order, so that two batches cannot deadlock.
insert into driver_state (driver_id, available, lat, lng, at, version)
select new.driver_id, new.available, new.lat, new.lng, new.at, extract(epoch from clock_timestamp()) * 1000000
from unnest($1::text[], $2::boolean[], $3::float8[], $4::float8[], $5::timestamptz[])
         as new (driver_id, available, lat, lng, at)
order by new.driver_id collate "C"
on conflict (driver_id) do update
    set available = excluded.available,
        lat       = excluded.lat,
        lng       = excluded.lng,
        at        = excluded.at,
        version   = greatest(driver_state.version + 1, excluded.version)
    where (driver_state.available, driver_state.lat, driver_state.lng)
              is distinct from (excluded.available, excluded.lat, excluded.lng)
returning driver_id, available, lat, lng, at, version
