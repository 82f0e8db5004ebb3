-- Removes registrations of a replica.
delete from presence
using unnest($1::text[], $2::text[]) as disconnected (topic, user_id)
where presence.topic = disconnected.topic
  and presence.user_id = disconnected.user_id
  and presence.replica = $3::uuid
