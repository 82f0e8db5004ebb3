-- Registers a subscription, which then belongs to the user `$3`, and deletes the user's oldest other ones beyond `$8`. It expires
-- `$7` seconds after 1970, and at the latest `$9` seconds from now.
with surplus as (delete from push_subscriptions
                 where id in (select id
                              from push_subscriptions
                              where user_id = $3::text
                                and endpoint <> $2::text
                              order by registered_at desc
                              offset $8::bigint))
insert into push_subscriptions as existing (id, endpoint, user_id, host, p256dh, auth, registered_at, expires_at)
values ($1::uuid, $2, $3, $4::text, $5::bytea, $6::bytea, statement_timestamp(),
        least(to_timestamp($7::float8), statement_timestamp() + make_interval(secs => $9::float8)))
on conflict (endpoint) do update
set id = case when existing.user_id = excluded.user_id then existing.id else excluded.id end,
    user_id = excluded.user_id,
    host = excluded.host,
    p256dh = excluded.p256dh,
    auth = excluded.auth,
    registered_at = excluded.registered_at,
    expires_at = excluded.expires_at
