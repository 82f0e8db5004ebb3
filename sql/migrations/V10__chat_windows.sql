-- When a ride's chat opens and closes, for whom; and rides that are opened again.
--
-- `accepted` says since now whether the chat window has opened: with the default policy that is when the ride is accepted.

-- The policy of the ride, all three or none: then the default.
alter table rides add column chat_opens_at text;
alter table rides add column rider_grace_seconds bigint;
alter table rides add column driver_grace_seconds bigint;

-- Until when the rider and the driver may write: decided once, when the ride ends, by the database's clock.
alter table rides add column rider_closes_at timestamptz;
alter table rides add column driver_closes_at timestamptz;

-- Where the log ended when the ride was closed: a merged stream goes on from there when the ride is opened again.
alter table rides add column closed_seq bigint;

-- Rides to be closed, by when. The index before it (`rides_to_close`) is for replicas of the version before; a later version
-- drops it.
create index rides_by_closing on rides (greatest(rider_closes_at, driver_closes_at))
    where ended_at is not null and closed_at is null;

-- Rides that a version before this one has ended: nobody has decided when they close.
create index rides_undecided on rides (ended_at)
    where ended_at is not null and closed_at is null and rider_closes_at is null;

-- How a ride was when somebody left it, which is all that they are shown of it then, whatever has become of it and of its log.
alter table participants add column left_status text;
alter table participants add column left_updated_at timestamptz;
update participants
set left_status     = event.data::json -> 'ride' ->> 'status',
    left_updated_at = (event.data::json -> 'ride' ->> 'updatedAt')::timestamptz
from events event
where participants.until_seq is not null
  and event.topic = 'ride/' || participants.ride_id
  and event.seq = participants.until_seq
  and event.type = 'ride:participants';

-- As before, with the chat's window, and the database's time at which it was read.
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
       ride.closed_at,
       ride.chat_opens_at,
       ride.rider_grace_seconds,
       ride.driver_grace_seconds,
       ride.rider_closes_at,
       ride.driver_closes_at,
       ride.closed_seq,
       statement_timestamp() as read_at
from rides ride
join topics topic on topic.name = 'ride/' || ride.ride_id
-- A position of the driver before says nothing about this one.
left join ride_locations location on location.ride_id = ride.ride_id and location.driver_id = ride.driver_id;
