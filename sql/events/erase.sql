-- Replaces what the events of deleted messages say by their tombstones: their `message:new` is found by its
-- place in the log, their edits by the message.
update events
set data = gone.tombstone
from unnest($1::text[], $2::bigint[], $3::uuid[], $4::text[]) as gone (topic, seq, message_id, tombstone)
where events.topic = gone.topic
  and events.seq in (select gone.seq
                     union all
                     select edit.seq
                     from events edit
                     where edit.message_id = gone.message_id)
