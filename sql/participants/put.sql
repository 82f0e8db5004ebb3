-- Inserts or updates participants. When a ride is reopened, it may receive messages again, so `is_read` is reset.
insert into participants (ride_id, user_id, role, from_seq, until_seq, joined_at, is_over, left_status, left_updated_at, user_shard)
select *
from unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::timestamptz[], $7::boolean[],
            $8::text[], $9::timestamptz[], $10::bigint[])
on conflict (ride_id, user_id, from_seq) do update
    set until_seq       = excluded.until_seq,
        is_over         = excluded.is_over,
        is_read         = participants.is_read and excluded.is_over,
        left_status     = excluded.left_status,
        left_updated_at = excluded.left_updated_at,
        user_shard      = excluded.user_shard
