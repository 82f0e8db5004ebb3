-- Gives positions to the events of the oldest `$1` batches that have none, and returns where the feed ends
-- then and how many batches there were, if there were any. The head is locked, by a statement before this one.
with taken as (delete from feed_batches
               where id in (select id from feed_batches where id > 0 order by id limit $1::bigint)
               returning id, topics, first_seqs, last_seqs, flags),
     -- A topic's batches have ids in the order of its log.
     numbered as (select part.topic, event.seq, part.flag,
                         row_number() over (order by taken.id, part.topic collate "C", event.seq, part.flag) as n
                  from taken
                  cross join lateral unnest(taken.topics, taken.first_seqs, taken.last_seqs, taken.flags)
                               as part (topic, first_seq, last_seq, flag)
                  cross join lateral generate_series(part.first_seq, part.last_seq) as event (seq)),
     placed as (insert into feed (position, topic, seq, type, flag, created_at)
                select head.last_seq + numbered.n, numbered.topic, numbered.seq,
                       case when numbered.flag is not null then 'message:flagged' end, numbered.flag, statement_timestamp()
                from numbered
                cross join (select last_seq from topics where name = 'feed') as head)
update topics
set last_seq = last_seq + added.count
from (select count(*) from numbered) as added
where topics.name = 'feed'
  and added.count > 0
returning topics.last_seq, (select count(*) from taken) as batches
