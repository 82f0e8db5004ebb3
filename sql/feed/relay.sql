-- Assigns feed positions to the events of the oldest `$1` batches without them. Does nothing while another transaction assigns
-- positions. Returns the feed's end, or null in that case, and whether there may be more batches. With `$2` there is a row for each
-- batch, with its first position.
--
-- The statement locks the head itself, so its snapshot may be older than the commit of the previous holder. That is harmless: it
-- cannot delete the batches that the other has deleted, and a locked row is the current one. The time of the positions is read under
-- the lock, so it is in their order.
--
-- The events of rides are stored as ranges. The events of users, flags and reports of undelivered messages have a row each.
with locked as materialized (select last_seq from topics where name = 'feed' for no key update skip locked),
     head as materialized (select last_seq, clock_timestamp() as now from locked),
     oldest as materialized (select id from feed_batches where id > 0 order by id limit $1::bigint),
     taken as (delete from feed_batches
               where (select count(*) from head) > 0
                 and id in (select id from oldest)
               returning id, topics, first_seqs, last_seqs, flags, reports, event_count),
     -- The ids of a topic's batches are in the order of its log.
     placed as (select taken.*, head.now, head.last_seq + (sum(event_count) over (order by id))::bigint as last_position
                from taken
                cross join head),
     ranges as (insert into feed_ranges (last_position, first_position, topics, first_seqs, last_seqs, created_at)
                select last_position, last_position - event_count + 1, topics, first_seqs, last_seqs, now
                from placed
                where topics[1] like 'ride/%'
                  and flags is null
                  and reports is null),
     single as (insert into feed (position, topic, seq, type, data, flag, created_at)
                select placed.last_position - placed.event_count
                           + row_number() over (partition by placed.id order by part.ordinal, event.seq),
                       part.topic, event.seq,
                       case when part.flag is not null then 'message:flagged'
                            when part.report is not null then 'message:undelivered' end,
                       part.report, part.flag, placed.now
                from placed
                cross join lateral unnest(placed.topics, placed.first_seqs, placed.last_seqs, placed.flags, placed.reports) with ordinality
                               as part (topic, first_seq, last_seq, flag, report, ordinal)
                cross join lateral generate_series(part.first_seq, part.last_seq) as event (seq)
                where placed.topics[1] like 'user/%'
                   or placed.flags is not null
                   or placed.reports is not null),
     moved as (update topics
               set last_seq = added.last_position
               from (select max(last_position) as last_position from placed) as added
               where topics.name = 'feed'
                 and added.last_position is not null
               returning topics.last_seq)
select coalesce((select last_seq from moved), (select last_seq from head)) as last_seq,
       (select count(*) from oldest) >= $1 as has_more, batch.last_position - batch.event_count + 1 as first_position, batch.topics,
       batch.first_seqs, batch.last_seqs
from (select 1) as outcome
left join placed as batch on $2::boolean
                         and batch.flags is null
                         and batch.reports is null
