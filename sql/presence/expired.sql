-- Returns at most `$1` users with an expired registration: its replica has no lease any more, or it has expired by itself. The
-- recursion looks up one replica after the other in the index, so its cost does not depend on their number of users.
-- Registrations that expire by themselves have the largest possible replica id, which no replica ever has.
with recursive holders as ((select replica
                            from presence
                            where replica > '00000000-0000-0000-0000-000000000000'
                            order by replica
                            limit 1)
                           union all
                           select (select next.replica
                                   from presence next
                                   where next.replica > holders.replica
                                   order by next.replica
                                   limit 1)
                           from holders
                           where holders.replica is not null)
select topic, user_id
from ((select presence.topic, presence.user_id
       from holders
       join presence on presence.replica = holders.replica
       where holders.replica < 'ffffffff-ffff-ffff-ffff-ffffffffffff'
         and not exists (select from replicas where replicas.replica = holders.replica)
       limit $1::bigint)
      union
      (select topic, user_id
       from presence
       where expires_at <= statement_timestamp()
       limit $1)) as expired
limit $1
