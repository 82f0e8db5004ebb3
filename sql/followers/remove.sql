-- Removes topics without readers on a replica. A topic that was registered again, with a later generation than `$3`, stays. Rows are
-- locked in the order in which they are written.
with removed as materialized (select follower.topic, follower.replica
                              from (select topic from unnest($1::text[]) as idle (topic) order by topic collate "C") as idle
                              cross join lateral (select topic, replica
                                                  from followers
                                                  where followers.topic = idle.topic
                                                    and followers.replica = $2::uuid
                                                    and followers.generation <= $3::bigint
                                                  for update) as follower)
delete from followers
using removed
where followers.topic = removed.topic
  and followers.replica = removed.replica
