-- Returns messages by ride, sender and client message id. It uses the indexed expression (`/` occurs in no id).
select message.*
from unnest($1::text[], $2::text[], $3::text[]) as sent (ride_id, sender_id, client_message_id)
join message_rows message on message.ride_id || '/' || message.sender_id = sent.ride_id || '/' || sent.sender_id
    and message.client_message_id = sent.client_message_id
