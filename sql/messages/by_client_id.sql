-- By the expression that is indexed (`/` is in no id).
select message.id, message.ride_id, message.seq, message.sender_id, message.sender_role, message.content,
       message.metadata, message.client_message_id, message.content_hash, message.created_at,
       message.edited_at, message.deleted_at, message.labels, message.reactions
from unnest($1::text[], $2::text[], $3::text[]) as sent (ride_id, sender_id, client_message_id)
join messages message on message.ride_id || '/' || message.sender_id = sent.ride_id || '/' || sent.sender_id
    and message.client_message_id = sent.client_message_id
