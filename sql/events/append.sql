insert into events (topic, seq, type, data, message_id, created_at)
select new.topic, new.seq, new.type, new.data, new.message_id, $6
from unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::uuid[])
         as new (topic, seq, type, data, message_id)
