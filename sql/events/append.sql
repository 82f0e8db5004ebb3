-- Appends events and the messages that some of them are, and raises the heads of their topics: for each topic all of it, or
-- nothing where its head is not the one it was judged at: the same place, written by the same batch. So what was judged by what
-- is known, under no lock, is stored if, and only if, nobody has written to that topic since, nor has the database lost what was
-- written. Says which topics, unless all; or, with `$22`, ends the transaction unless it is all. With `$23`, notes for the relay
-- what has no position in the feed yet: after the heads are locked, so that a topic's batches are noted in the order of its log.
--
-- Nor is anything stored of a topic that somebody else has locked: a row that had to be waited for would delay all the others.
-- Heads are locked before they are raised, and one that was raised since this statement began is looked at again then.
with ends as (select topic, judged_at, judged_batch, last_seq
              from unnest($8::text[], $9::bigint[], $10::bigint[], $11::bigint[])
                       as ends (topic, judged_at, judged_batch, last_seq)),
     free as materialized (select topics.name, ends.judged_at, ends.judged_batch, ends.last_seq
                           from ends
                           join topics on topics.name = ends.topic
                                      and topics.last_seq = ends.judged_at
                                      and topics.last_batch = coalesce(ends.judged_batch, topics.last_batch)
                           for no key update of topics skip locked),
     raised as (update topics
                set last_seq   = free.last_seq,
                    last_batch = $21::bigint
                from free
                where topics.name = free.name
                  and topics.last_seq = free.judged_at
                  and topics.last_batch = coalesce(free.judged_batch, topics.last_batch)
                returning topics.name),
     judged as (select (select count(*) from raised) = cardinality($8::text[]) as right),
     appended as (insert into events (topic, seq, type, data, message_id, trace, created_at, batch)
                  select topic, seq, type, data, message_id, trace, $7::timestamptz, $21
                  from unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::uuid[], $6::text[])
                           as new (topic, seq, type, data, message_id, trace)
                  where (select judged.right from judged) or topic in (select name from raised)),
     noted as (insert into feed_batches (topics, first_seqs, last_seqs)
               select array_agg(topic), array_agg(judged_at + 1), array_agg(last_seq)
               from ends
               where $23::boolean
                 and ((select judged.right from judged) or topic in (select name from raised))
               having count(*) > 0),
     said as (insert into messages (id, ride_id, seq, sender_id, sender_role, content, metadata, client_message_id,
                                    content_hash, created_at)
              select id, ride_id, seq, sender_id, sender_role, content, metadata, client_message_id, content_hash,
                     $7::timestamptz
              from unnest($12::uuid[], $13::text[], $14::bigint[], $15::text[], $16::text[], $17::text[], $18::text[],
                          $19::text[], $20::bytea[])
                       as said (id, ride_id, seq, sender_id, sender_role, content, metadata, client_message_id, content_hash)
              where (select judged.right from judged) or 'ride/' || ride_id in (select name from raised))
select case when judged.right then null
            when $22::boolean then refuse_part()
            else array (select name from raised) end as only
from judged
