-- Keeps what was flagged, and notes it for the relay: of the topics that the batch `$6` has written to, in its transaction. Noted
-- after the batch's events, so it is on the feed after them.
with flagged as materialized (select new.id, new.message_id, new.topic, new.seq, new.labels
                              from unnest($1::uuid[], $2::uuid[], $3::text[], $4::bigint[], $5::text[])
                                       as new (id, message_id, topic, seq, labels)
                              join topics on topics.name = new.topic
                              where topics.last_batch = $6::bigint),
     kept as (insert into flags (id, message_id, labels, created_at)
              select id, message_id, labels, $7::timestamptz
              from flagged)
insert into feed_batches (topics, first_seqs, last_seqs, flags)
select array_agg(topic), array_agg(seq), array_agg(seq), array_agg(id)
from flagged
having count(*) > 0
