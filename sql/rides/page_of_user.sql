-- The rides that a user is on, the last that they joined first, after a place in that order; those with a status, where one is given.
select joined.ride_id, joined.joined_at as place
from participants joined
join rides on rides.ride_id = joined.ride_id
where joined.user_id = $1::text
  and joined.until_seq is null
  and ($2::text is null or rides.status = $2)
  and (joined.joined_at, joined.ride_id) < ($3::timestamptz, $4::text)
order by joined.joined_at desc, joined.ride_id desc
limit $5::bigint
