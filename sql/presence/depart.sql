delete from presence
using unnest($1::text[], $2::text[]) as gone (ride_id, user_id)
where presence.ride_id = gone.ride_id
  and presence.user_id = gone.user_id
  and presence.replica = $3
