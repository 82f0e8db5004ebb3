-- How a ride was when somebody left it; with the event that took them off it, as long as the log has that.
select mine.left_status, mine.left_updated_at, event.data as event
from participants mine
left join events event on event.topic = 'ride/' || mine.ride_id
                      and event.seq = mine.until_seq
where mine.ride_id = $1::text
  and mine.user_id = $2::text
  and mine.until_seq = $3::bigint
