-- Removes registrations of these users that hold no longer, and only those: one may have been extended before the lock was
-- held. A lease that is gone never returns; one that has only run out is left to `expire.sql`.
delete from presence
using unnest($1::text[], $2::text[]) as lapsed (topic, user_id)
where presence.topic = lapsed.topic
  and presence.user_id = lapsed.user_id
  and case when presence.expires_at is null
           then not exists (select from replicas where replicas.replica = presence.replica)
           else presence.expires_at <= clock_timestamp() end
