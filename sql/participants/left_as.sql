-- How a ride was when somebody left it; with the event that took them off it, as long as the log has that.
select mine.left_status, mine.left_updated_at, event.data as event
from participants mine
left join events event on event.topic = 'ride/' || $1::text
                      and event.seq = $3::bigint
where mine.ride_id = $1
  and mine.user_id = $2::text
  and mine.until_seq = $3
