-- Returns all rides, newest first, after a position in that order.
select ride_id, created_at as listed_at
from rides
where (created_at, ride_id) < ($1::timestamptz, $2::text)
order by created_at desc, ride_id desc
limit $3::bigint
