-- Appends events, inserts the messages of `message:new` events, and advances the heads of their topics. Per topic this is a
-- compare-and-set: nothing is stored if the head is not the expected one, which is the seq and the batch that wrote it. So the
-- result of the optimistic path, which holds no lock, is stored only if no transaction has written to the topic since. Nor is it
-- stored if the database has lost what was written before.
--
-- Returns the topics that were stored, or null for all; with `$22`, the transaction fails unless all were stored. With `$23`, queues
-- the events for the relay, which assigns their feed positions: those of rides, and those of users. This happens after the heads are
-- locked, so the batches of a topic are queued in the order of its log.
--
-- Topics that another transaction has locked are not stored either: waiting for one row would delay all others. Heads are locked
-- before they advance, and one that has advanced since this statement began is compared again then.
with topic_ends as (select topic, expected_seq, expected_batch, last_seq
                    from unnest($8::text[], $9::bigint[], $10::bigint[], $11::bigint[])
                             as topic_ends (topic, expected_seq, expected_batch, last_seq)),
     locked as materialized (select topics.name, topic_ends.expected_seq, topic_ends.expected_batch, topic_ends.last_seq
                             from topic_ends
                             join topics on topics.name = topic_ends.topic
                                        and topics.last_seq = topic_ends.expected_seq
                                        and topics.last_batch = coalesce(topic_ends.expected_batch, topics.last_batch)
                             for no key update of topics skip locked),
     advanced as (update topics
                  set last_seq   = locked.last_seq,
                      last_batch = $21::bigint
                  from locked
                  where topics.name = locked.name
                    and topics.last_seq = locked.expected_seq
                    and topics.last_batch = coalesce(locked.expected_batch, topics.last_batch)
                  returning topics.name),
     outcome as (select (select count(*) from advanced) = cardinality($8::text[]) as is_complete),
     appended as (insert into events (topic, seq, type, data, message_id, trace, created_at, batch)
                  select topic, seq, event_type, data, message_id, trace, $7::timestamptz, $21
                  from unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::uuid[], $6::text[])
                           as new (topic, seq, event_type, data, message_id, trace)
                  where (select outcome.is_complete from outcome) or topic in (select name from advanced)),
     queued as (insert into feed_batches (topics, first_seqs, last_seqs, event_count)
                select array_agg(topic), array_agg(expected_seq + 1), array_agg(last_seq), sum(last_seq - expected_seq)
                from topic_ends
                where $23::boolean
                  and ((select outcome.is_complete from outcome) or topic in (select name from advanced))
                group by topic like 'ride/%'),
     inserted as (insert into messages (id, ride_id, seq, sender_id, sender_role, content, metadata, client_message_id,
                                        content_hash, created_at)
                  select id, ride_id, seq, sender_id, sender_role, content, metadata, client_message_id, content_hash,
                         $7::timestamptz
                  from unnest($12::uuid[], $13::text[], $14::bigint[], $15::text[], $16::text[], $17::text[], $18::text[],
                              $19::text[], $20::bytea[])
                           as sent (id, ride_id, seq, sender_id, sender_role, content, metadata, client_message_id, content_hash)
                  where (select outcome.is_complete from outcome) or 'ride/' || ride_id in (select name from advanced))
select case when outcome.is_complete then null
            when $22::boolean then refuse_part()
            else array (select name from advanced) end as stored_topics
from outcome
