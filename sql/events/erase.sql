-- Replaces the data of the events of deleted messages with tombstones. A `message:new` is found by its log position, its edits by
-- the message id: only edits have `events.message_id`.
with deleted as (select * from unnest($1::text[], $2::bigint[], $3::uuid[], $4::text[])
                     as message (topic, seq, message_id, tombstone)),
     affected as (select topic, seq, tombstone
                  from deleted
                  union all
                  select edit.topic, edit.seq, deleted.tombstone
                  from deleted
                  join events edit on edit.message_id = deleted.message_id)
update events
set data = affected.tombstone
from affected
where events.topic = affected.topic
  and events.seq = affected.seq
