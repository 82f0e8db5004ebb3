-- Returns the state of a ride when a participant left it, with the event of the removal while the log still has it.
select participant.left_status, participant.left_updated_at, event.data as removal_event
from participants participant
left join events event on event.topic = 'ride/' || $1::text
                      and event.seq = $3::bigint
where participant.ride_id = $1
  and participant.user_id = $2::text
  and participant.until_seq = $3
