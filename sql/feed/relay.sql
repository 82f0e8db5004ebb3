-- Assigns feed positions to the events of the oldest `$1` batches without them. If there were any, returns the feed's new end and
-- the number of batches. A statement before this one has locked the head.
with taken as (delete from feed_batches
               where id in (select id from feed_batches where id > 0 order by id limit $1::bigint)
               returning id, topics, first_seqs, last_seqs, flags),
     -- The ids of a topic's batches are in the order of its log.
     numbered as (select part.topic, event.seq, part.flag,
                         row_number() over (order by taken.id, part.topic collate "C", event.seq, part.flag) as n
                  from taken
                  cross join lateral unnest(taken.topics, taken.first_seqs, taken.last_seqs, taken.flags)
                               as part (topic, first_seq, last_seq, flag)
                  cross join lateral generate_series(part.first_seq, part.last_seq) as event (seq)),
     added as (insert into feed (position, topic, seq, type, flag, created_at)
               select head.last_seq + numbered.n, numbered.topic, numbered.seq,
                      case when numbered.flag is not null then 'message:flagged' end, numbered.flag, statement_timestamp()
               from numbered
               cross join (select last_seq from topics where name = 'feed') as head)
update topics
set last_seq = last_seq + numbered_events.count
from (select count(*) from numbered) as numbered_events
where topics.name = 'feed'
  and numbered_events.count > 0
returning topics.last_seq, (select count(*) from taken) as batches
