-- The log, and what its events say about rides and messages.
--
-- Keys are compared byte by byte ("C"), so that the order in which Postgres locks topics is the order in which
-- the writer sorts them, whatever the database's own collation.

-- One row per topic, the head of its log. A writer holds this row's lock from the judging of a command to its
-- commit: that is what makes the order of `last_seq` the order of commits. Room on each page and no index on
-- the counter keep its updates heap-only.
create table topics (
    name     text collate "C" primary key,
    last_seq bigint not null default 0
) with (fillfactor = 50);

-- The log. `data` holds the JSON as it is sent, in one line. `message_id` is set where a later deletion has to
-- find the event again and the message's own row does not say where it is: on edits.
create table events (
    topic      text collate "C" not null,
    seq        bigint           not null,
    type       text             not null,
    data       text             not null,
    message_id uuid,
    created_at timestamptz      not null,
    primary key (topic, seq)
);
create index events_by_message on events (message_id) where message_id is not null;

create table rides (
    ride_id    text collate "C" primary key,
    status     text             not null,
    rider_id   text collate "C" not null,
    driver_id  text collate "C",
    accepted   boolean          not null,
    ended_at   timestamptz,
    created_at timestamptz      not null,
    updated_at timestamptz      not null
) with (fillfactor = 80);

-- Who was on a ride, and which part of its log is theirs: from `from_seq` to `until_seq`, both included. A
-- driver who is replaced and comes back has two rows.
create table participants (
    ride_id   text collate "C" not null,
    user_id   text collate "C" not null,
    role      text             not null,
    from_seq  bigint           not null,
    until_seq bigint,
    joined_at timestamptz      not null,
    primary key (ride_id, user_id, from_seq)
);
create index participants_by_user on participants (user_id, joined_at desc, ride_id desc) where until_seq is null;

-- How far each user of a ride has received and read it: watermarks, apart from `participants` because they move
-- with every message, and because support has them without being on the ride.
create table receipts (
    ride_id       text collate "C" not null,
    user_id       text collate "C" not null,
    role          text             not null,
    delivered_seq bigint           not null,
    read_seq      bigint           not null,
    primary key (ride_id, user_id)
) with (fillfactor = 70);

-- Messages as they are now. A deleted one stays as a tombstone, without content and metadata. `content_hash` is
-- that of what was first sent: a retry is told by it even after an edit or a deletion.
create table messages (
    id                uuid primary key,
    ride_id           text collate "C" not null,
    seq               bigint           not null,
    sender_id         text collate "C" not null,
    sender_role       text             not null,
    content           text,
    metadata          text,
    client_message_id text collate "C",
    content_hash      bytea            not null,
    created_at        timestamptz      not null,
    edited_at         timestamptz,
    deleted_at        timestamptz,
    unique (ride_id, seq)
);
create unique index messages_by_client_id on messages (ride_id, sender_id, client_message_id)
    where client_message_id is not null;
