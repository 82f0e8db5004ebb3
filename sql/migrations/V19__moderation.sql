-- Flagged messages.

-- The labels of a message's last check, if it was flagged: a JSON array.
alter table messages add column labels text;

-- What was flagged, for the feed. `labels` is null once the message is deleted.
create table flags (
    id         uuid primary key,
    message_id uuid        not null,
    labels     text,
    created_at timestamptz not null
);
create index flags_by_message on flags (message_id);

-- The flags among what has no position in the feed yet: a row of their own, in which each topic and seq are those of a message.
alter table feed_batches add column flags uuid[];

-- The flag at a position, whose type is `message:flagged`.
alter table feed add column flag uuid;
