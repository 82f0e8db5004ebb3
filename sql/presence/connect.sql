-- Registers users: under a replica's lease, or until `$4` seconds from now. A repeat only extends the latter.
insert into presence (topic, user_id, replica, expires_at)
select topic, user_id, $3::uuid, clock_timestamp() + make_interval(secs => $4::float8)
from unnest($1::text[], $2::text[]) as connected (topic, user_id)
order by topic collate "C", user_id collate "C"
on conflict (topic, user_id, replica) do update
    set expires_at = excluded.expires_at
    where presence.expires_at < excluded.expires_at
