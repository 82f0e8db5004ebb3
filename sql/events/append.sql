-- Appends events, and raises the heads of their topics, which are locked.
with new as (select *
             from unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::uuid[], $7::text[])
                      as new (topic, seq, type, data, message_id, trace)),
     raised as (update topics
                set last_seq = ends.last_seq
                from (select topic, max(seq) as last_seq from new group by topic) as ends
                where topics.name = ends.topic)
insert into events (topic, seq, type, data, message_id, trace, created_at)
select topic, seq, type, data, message_id, trace, $6::timestamptz
from new
