-- Replaces what the events of deleted messages say by their tombstones: their `message:new` is found by its
-- place in the log, their edits by the message.
with gone as (select * from unnest($1::text[], $2::bigint[], $3::uuid[], $4::text[])
                  as message (topic, seq, message_id, tombstone)),
     said as (select topic, seq, tombstone
              from gone
              union all
              select edit.topic, edit.seq, gone.tombstone
              from gone
              join events edit on edit.message_id = gone.message_id)
update events
set data = said.tombstone
from said
where events.topic = said.topic
  and events.seq = said.seq
