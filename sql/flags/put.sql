-- Stores flags and queues them for the relay, for those topics that the batch `$6` has written to in this transaction. They are
-- queued after the batch's events, so they follow them on the feed.
with flagged as materialized (select new.id, new.message_id, new.topic, new.seq, new.labels
                              from unnest($1::uuid[], $2::uuid[], $3::text[], $4::bigint[], $5::text[])
                                       as new (id, message_id, topic, seq, labels)
                              join topics on topics.name = new.topic
                              where topics.last_batch = $6::bigint),
     stored as (insert into flags (id, message_id, labels, created_at)
                select id, message_id, labels, $7::timestamptz
                from flagged)
insert into feed_batches (topics, first_seqs, last_seqs, flags, event_count)
select array_agg(topic), array_agg(seq), array_agg(seq), array_agg(id), count(*)
from flagged
having count(*) > 0
