-- Removes the expired registrations of these users, and only those: one may have been renewed before the lock was acquired. A
-- deleted lease never returns. A lease that has expired but still exists is left to `expire_leases.sql`.
delete from presence
using unnest($1::text[], $2::text[]) as expired (topic, user_id)
where presence.topic = expired.topic
  and presence.user_id = expired.user_id
  and case when presence.expires_at is null
           then not exists (select from replicas where replicas.replica = presence.replica)
           else presence.expires_at <= clock_timestamp() end
