-- Returns the shards that have rows in the outbox. It finds each by one lookup in the index, however many rows there are.
with recursive found as ((select shard
                          from outbox
                          where shard >= 0
                          order by shard
                          limit 1)
                         union all
                         select (select outbox.shard
                                 from outbox
                                 where outbox.shard > found.shard
                                 order by outbox.shard
                                 limit 1)
                         from found
                         where found.shard is not null)
select shard
from found
where shard is not null
