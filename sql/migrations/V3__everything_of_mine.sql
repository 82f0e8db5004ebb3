-- What one stream of everything needs: which rides are a user's now, where a ride ends for good, and who of the drivers
-- takes rides.
--
-- Users' own topics are rows of `topics` like all others, made when there is first something to tell.

-- When the grace after a ride's end had passed and its people were told (`ride:closed`).
alter table rides add column closed_at timestamptz;
create index rides_to_close on rides (ended_at) where ended_at is not null and closed_at is null;

-- The same for each of its people, so that those of a user's rides that still go on are found without the past ones.
alter table participants add column is_over boolean not null default false;
create index participants_going_on on participants (user_id, joined_at desc, ride_id desc)
    where until_seq is null and not is_over;

-- Whether drivers take rides: the last that is known of each.
create table driver_state (
    driver_id text collate "C" primary key,
    available boolean          not null,
    lat       double precision,
    lng       double precision,
    at        timestamptz      not null,
    version   bigint           not null
) with (fillfactor = 70);
create index driver_state_available on driver_state (driver_id) where available;
create index driver_state_by_version on driver_state (version);

-- Presence is on a topic: a ride's, or that of the drivers, on which a driver is while anything of theirs is open. What
-- was registered under the old names is gone, and with it the leases, so every replica registers its people again.
truncate presence, presence_states, replicas;
alter table presence rename column ride_id to topic;
alter table presence_states rename column ride_id to topic;

-- As before, with presence found by the topic, and when the ride was closed.
create or replace view ride_snapshots as
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
        left join presence_states state on state.topic = topic.name and state.user_id = member.user_id
        where member.ride_id = ride.ride_id) as participants,
       (select json_agg(json_build_array(mark.user_id, mark.role, mark.delivered_seq, mark.read_seq)
                        order by mark.user_id)
        from receipts mark
        where mark.ride_id = ride.ride_id) as receipts,
       location.version as location_version,
       location.seq as location_seq,
       location.data as location,
       ride.closed_at
from rides ride
join topics topic on topic.name = 'ride/' || ride.ride_id
-- A position of the driver before says nothing about this one.
left join ride_locations location on location.ride_id = ride.ride_id and location.driver_id = ride.driver_id;
