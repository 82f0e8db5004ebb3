-- Appends events and the messages that some of them are, and raises the heads of their topics: all of it, or nothing where
-- a head is not where the batch was judged to be. So a batch that was judged by what is known, under no lock, is stored if,
-- and only if, nobody has written to its topics since. Says which.
--
-- Topics are locked in one order, as everywhere; a row that had to be waited for is read again after the wait. Heads are raised
-- where they lie: whose row is another since has moved, and nothing is stored.
with locked as (select topics.ctid as place, ends.last_seq, topics.last_seq = ends.judged_at as is_right
                from unnest($8::text[], $9::bigint[], $10::bigint[]) as ends (topic, judged_at, last_seq)
                join topics on topics.name = ends.topic
                order by ends.topic
                for update of topics),
     judged as (select (select count(*) from locked where is_right) = cardinality($8::text[]) as right),
     raised as (update topics
                set last_seq = locked.last_seq
                from locked
                where topics.ctid = locked.place
                  and (select judged.right from judged)),
     appended as (insert into events (topic, seq, type, data, message_id, trace, created_at)
                  select topic, seq, type, data, message_id, trace, $7::timestamptz
                  from unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::uuid[], $6::text[])
                           as new (topic, seq, type, data, message_id, trace)
                  where (select judged.right from judged)),
     said as (insert into messages (id, ride_id, seq, sender_id, sender_role, content, metadata, client_message_id,
                                    content_hash, created_at)
              select id, ride_id, seq, sender_id, sender_role, content, metadata, client_message_id, content_hash,
                     $7::timestamptz
              from unnest($11::uuid[], $12::text[], $13::bigint[], $14::text[], $15::text[], $16::text[], $17::text[],
                          $18::text[], $19::bytea[])
                       as said (id, ride_id, seq, sender_id, sender_role, content, metadata, client_message_id, content_hash)
              where (select judged.right from judged))
select judged.right as is_stored
from judged
