-- As before, with the batch that wrote the last event: it tells the log from another that has come as far, after a restore.
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
       statement_timestamp() as read_at,
       topic.last_batch
from rides ride
join topics topic on topic.name = 'ride/' || ride.ride_id
-- A position of the driver before says nothing about this one.
left join ride_locations location on location.ride_id = ride.ride_id and location.driver_id = ride.driver_id;
