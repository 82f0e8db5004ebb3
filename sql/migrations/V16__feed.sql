-- The feed: one order for the durable events of all rides and users.

-- What has no position in the feed yet: one row for each batch, added by the transaction that appends it. For each topic the seqs
-- of the first and the last event. Of two rows with the same topic the older one has the smaller id, since a topic's row in
-- `topics` is locked before the id is drawn, and until the commit.
create table feed_batches (
    id         bigint generated always as identity primary key,
    topics     text[]   not null,
    first_seqs bigint[] not null,
    last_seqs  bigint[] not null
);

-- The feed: at each position an event of another topic's log. Of an event that is on the feed alone, `type` and `data` are here
-- and the seq is that of the message which it concerns.
create table feed (
    position   bigint primary key,
    topic      text collate "C" not null,
    seq        bigint           not null,
    type       text,
    data       text,
    created_at timestamptz      not null
);

-- Its head; also the lock under which positions are given.
insert into topics (name) values ('feed') on conflict (name) do nothing;
