-- Returns all rides with a status, newest first, after a position in that order.
select ride_id, created_at as listed_at
from rides
where status = $1::text
  and (created_at, ride_id) < ($2::timestamptz, $3::text)
order by created_at desc, ride_id desc
limit $4::bigint
