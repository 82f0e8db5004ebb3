-- Everything live about a ride.

-- Who reacted how: `[["👍", ["rider_1"]], …]`, in the order of the first of each. In the message's own row: it is
-- never wanted without it, is bounded (20 kinds), and changes under the same lock.
alter table messages add column reactions text not null default '[]';

-- Secrets that all replicas share and nobody has to configure. That of stream tickets is made here, once: gen_random_uuid
-- draws 122 bits from the operating system.
create table secrets (
    name  text primary key,
    value bytea not null
);
insert into secrets (name, value)
values ('stream_tickets', decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'));

-- Where a ride's driver is: the last position alone. It may be lost with a crash of the database, so it is not logged;
-- versions come from the clock, so they grow all the same. `seq` is the place in the ride's log at which it was true.
create unlogged table ride_locations (
    ride_id   text collate "C" primary key,
    driver_id text collate "C" not null,
    version   bigint           not null,
    seq       bigint           not null,
    at        timestamptz      not null,
    data      text             not null
) with (fillfactor = 50);

-- Who is there. All of it may be lost with a crash of the database: replicas then register everyone again.
--
-- A replica's lease; one that has run out counts for nothing, and what was registered under it goes.
create unlogged table replicas (
    replica    uuid primary key,
    expires_at timestamptz not null
);

-- A user who follows a ride on a replica, however many of their devices do.
create unlogged table presence (
    ride_id text collate "C" not null,
    user_id text collate "C" not null,
    replica uuid             not null,
    primary key (ride_id, user_id, replica)
);
create index presence_by_replica on presence (replica);

-- What was last told of a user. Whoever changes who is there locks this row first, so two replicas that a user leaves at
-- once cannot both think that the other one has them.
create unlogged table presence_states (
    ride_id text collate "C" not null,
    user_id text collate "C" not null,
    online  boolean          not null,
    since   timestamptz      not null,
    version bigint           not null,
    seq     bigint           not null,
    primary key (ride_id, user_id)
) with (fillfactor = 70);

-- Rides as they are, each with the head of its log, its participants and receipts. What one statement reads
-- through it is of one moment: `last_seq` says which place of the log the rest is true at.
create view ride_snapshots as
select ride.ride_id,
       topic.last_seq,
       ride.status,
       ride.rider_id,
       ride.driver_id,
       ride.accepted,
       ride.ended_at,
       ride.created_at as ride_created_at,
       ride.updated_at as ride_updated_at,
       (select json_agg(json_build_array(member.user_id, member.role, member.from_seq, member.until_seq,
                                         state.online, floor(extract(epoch from state.since) * 1000)::bigint,
                                         state.version, state.seq)
                        order by member.from_seq, member.role desc)
        from participants member
        left join presence_states state on state.ride_id = member.ride_id and state.user_id = member.user_id
        where member.ride_id = ride.ride_id) as participants,
       (select json_agg(json_build_array(mark.user_id, mark.role, mark.delivered_seq, mark.read_seq)
                        order by mark.user_id)
        from receipts mark
        where mark.ride_id = ride.ride_id) as receipts,
       location.version as location_version,
       location.seq as location_seq,
       location.data as location
from rides ride
join topics topic on topic.name = 'ride/' || ride.ride_id
-- A position of the driver before says nothing about this one.
left join ride_locations location on location.ride_id = ride.ride_id and location.driver_id = ride.driver_id;
