-- Inserts or updates rides. `log_is_trimmed` becomes false for a ride that is not closed: its log has events that retention must
-- delete later.
insert into rides (ride_id, status, rider_id, driver_id, accepted, ended_at, closed_at, created_at, updated_at, chat_opens_at,
                   rider_grace_seconds, driver_grace_seconds, rider_closes_at, driver_closes_at, closed_seq)
select *
from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::boolean[],
            $6::timestamptz[], $7::timestamptz[], $8::timestamptz[], $9::timestamptz[], $10::text[],
            $11::bigint[], $12::bigint[], $13::timestamptz[], $14::timestamptz[], $15::bigint[])
on conflict (ride_id) do update
    set status               = excluded.status,
        driver_id            = excluded.driver_id,
        accepted             = excluded.accepted,
        ended_at             = excluded.ended_at,
        closed_at            = excluded.closed_at,
        updated_at           = excluded.updated_at,
        chat_opens_at        = excluded.chat_opens_at,
        rider_grace_seconds  = excluded.rider_grace_seconds,
        driver_grace_seconds = excluded.driver_grace_seconds,
        rider_closes_at      = excluded.rider_closes_at,
        driver_closes_at     = excluded.driver_closes_at,
        closed_seq           = excluded.closed_seq,
        log_is_trimmed       = rides.log_is_trimmed and excluded.closed_at is not null
