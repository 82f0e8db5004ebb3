select id, ride_id, seq, sender_id, sender_role, content, metadata, client_message_id, content_hash,
       created_at, edited_at, deleted_at, labels, reactions
from messages
where id = any ($1::uuid[])
