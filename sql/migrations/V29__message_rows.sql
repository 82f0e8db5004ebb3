-- The columns of a message, listed once. Statements select all columns of this view. A view keeps its columns when the table gets new
-- ones, so the prepared statements of running servers stay valid.
create view message_rows as
select id, ride_id, seq, sender_id, sender_role, content, metadata, client_message_id, content_hash, created_at, edited_at,
       deleted_at, labels, reactions
from messages;
