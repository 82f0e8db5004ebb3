-- Locations, presence and availability are sent only to the replicas that follow their topic.

-- What a replica appends to the name of the common channel to get its own channel. Null for a replica of an earlier version, which
-- listens to the common channel only.
alter table replicas add column channel text;

-- The topics that have readers on a replica. Rows of a replica without a lease have no effect. A crash of the database empties the
-- table; the replicas then register their topics again. A removal does not remove a row with a later generation.
create unlogged table followers (
    topic      text collate "C" not null,
    replica    uuid             not null,
    generation bigint           not null,
    primary key (topic, replica)
);
