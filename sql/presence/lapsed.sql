-- At most `$1` users with a registration that holds no longer: its replica has no lease any more, or it has expired. The index
-- is asked for one replica after the other, so it does not matter how many users they have. Registrations that expire by
-- themselves have the largest possible replica id, which is never given to a replica.
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
       limit $1)) as lapsed
limit $1
