-- Returns the age of the oldest event of a log without a feed position, in seconds.
select extract(epoch from statement_timestamp() - event.created_at)::float8 as age
from (select topics[1] as topic, first_seqs[1] as seq
      from feed_batches
      where id > 0
        and reports is null
      order by id
      limit 1) as batch
cross join lateral (select created_at
                    from events
                    where events.topic = batch.topic
                      and events.seq = batch.seq) as event
