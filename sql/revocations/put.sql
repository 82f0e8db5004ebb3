-- Revokes the tokens of a user that were issued until now.
insert into revocations (user_id, revoked_at, version)
values ($1::text, clock_timestamp(), (extract(epoch from clock_timestamp()) * 1000000)::bigint)
on conflict (user_id) do update
    set revoked_at = excluded.revoked_at,
        version    = greatest(revocations.version + 1, excluded.version)
returning revoked_at
