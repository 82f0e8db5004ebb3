-- Inserts or updates entries. The locks of their shards are held.
insert into remote_rides (user_id, ride_id, last_id, from_seq, until_seq, joined_at, status, is_ended, is_over, is_read)
select *
from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::timestamptz[], $7::text[], $8::boolean[],
            $9::boolean[], $10::boolean[])
         as new (user_id, ride_id, last_id, from_seq, until_seq, joined_at, status, is_ended, is_over, is_read)
on conflict (user_id, ride_id) do update
    set last_id    = excluded.last_id,
        from_seq   = excluded.from_seq,
        until_seq  = excluded.until_seq,
        joined_at  = excluded.joined_at,
        status     = excluded.status,
        is_ended   = excluded.is_ended,
        is_over    = excluded.is_over,
        is_read    = excluded.is_read,
        deleted_at = null
