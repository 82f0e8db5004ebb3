-- The trace of a message.

-- When messages were handed to participants' connections: all of a ride from `first_seq` to `last_seq`, both included, that the user may
-- see. Replicas write it once a second and nothing depends on it, so it is not in the write-ahead log: a crash of Postgres empties it, and a
-- standby does not have it.
create unlogged table handovers (
    ride_id   text collate "C" not null,
    user_id   text collate "C" not null,
    first_seq bigint           not null,
    last_seq  bigint           not null,
    transport text             not null,
    replica   text             not null,
    at        timestamptz      not null
);
create index handovers_of_ride on handovers (ride_id, last_seq);
create index handovers_of_user on handovers (user_id);
create index handovers_by_age on handovers (at);

-- The events that are on the feed alone, by the message that they concern.
create index feed_of_message on feed (topic, seq) where type is not null;
