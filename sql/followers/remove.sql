-- Removes topics without readers on a replica. A topic that was registered again, with a later generation than `$3`, stays.
delete from followers
using unnest($1::text[]) as removed (topic)
where followers.topic = removed.topic
  and followers.replica = $2::uuid
  and followers.generation <= $3::bigint
