delete from presence
using unnest($1::text[], $2::text[]) as gone (topic, user_id)
where presence.topic = gone.topic
  and presence.user_id = gone.user_id
  and presence.replica = $3::uuid
