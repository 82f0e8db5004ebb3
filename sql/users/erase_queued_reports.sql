-- Removes the reports of undelivered messages for a user from those that wait for a feed position. A statement before this one has
-- locked the search, so no report is added. A relay that takes such a batch meanwhile has added it to the feed before the next
-- statement.
with kept as (select batch.id, array_agg(part.topic order by part.ordinal) as topics,
                     array_agg(part.first_seq order by part.ordinal) as first_seqs,
                     array_agg(part.last_seq order by part.ordinal) as last_seqs,
                     array_agg(part.report order by part.ordinal) as reports, count(part.report) as event_count
              from feed_batches as batch
              left join lateral unnest(batch.topics, batch.first_seqs, batch.last_seqs, batch.reports) with ordinality
                                    as part (topic, first_seq, last_seq, report, ordinal)
                  on part.report::json ->> 'userId' <> $1::text
              where batch.id > 0
                and batch.reports is not null
              group by batch.id),
     emptied as (delete from feed_batches
                 using kept
                 where feed_batches.id = kept.id
                   and kept.event_count = 0)
update feed_batches
set topics      = kept.topics,
    first_seqs  = kept.first_seqs,
    last_seqs   = kept.last_seqs,
    reports     = kept.reports,
    event_count = kept.event_count
from kept
where feed_batches.id = kept.id
  and kept.event_count between 1 and feed_batches.event_count - 1
