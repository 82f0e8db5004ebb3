-- Inserts or updates the watermarks of participants.
insert into receipts (ride_id, user_id, role, delivered_seq, read_seq)
select *
from unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[])
on conflict (ride_id, user_id) do update
    set role          = excluded.role,
        delivered_seq = excluded.delivered_seq,
        read_seq      = excluded.read_seq
