-- Stores edits, reactions, labels and deletions of messages.
update messages
set content           = changed.content,
    metadata          = changed.metadata,
    client_message_id = changed.client_message_id,
    -- The hash of erased content would allow guesses of it to be verified.
    content_hash      = case when changed.deleted_at is null then messages.content_hash
                             else '\x00000000000000000000000000000000'::bytea end,
    edited_at         = changed.edited_at,
    deleted_at        = changed.deleted_at,
    reactions         = changed.reactions,
    labels            = changed.labels
from unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::text[], $7::text[],
            $8::text[])
         as changed (id, content, metadata, edited_at, deleted_at, reactions, labels, client_message_id)
where messages.id = changed.id
