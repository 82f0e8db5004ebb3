insert into rides (ride_id, status, rider_id, driver_id, accepted, ended_at, closed_at, created_at, updated_at)
select *
from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::boolean[],
            $6::timestamptz[], $7::timestamptz[], $8::timestamptz[], $9::timestamptz[])
on conflict (ride_id) do update
    set status     = excluded.status,
        driver_id  = excluded.driver_id,
        accepted   = excluded.accepted,
        ended_at   = excluded.ended_at,
        closed_at  = excluded.closed_at,
        updated_at = excluded.updated_at
