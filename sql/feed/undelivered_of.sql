-- Returns when the message `$2` of a ride's topic was reported as undelivered, by participant.
select data::json ->> 'userId' as user_id, min((data::json ->> 'at')::timestamptz) as at
from feed
where topic = $1::text
  and seq = $2::bigint
  and type = 'message:undelivered'
group by data::json ->> 'userId'
