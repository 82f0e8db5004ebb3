-- The hash of a message's content goes with the content: it tells a guess of what was deleted from another.
update messages
set content_hash = '\x00000000000000000000000000000000'::bytea
where deleted_at is not null;
