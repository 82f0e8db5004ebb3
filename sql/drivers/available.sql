-- Those who take rides now, by id, from the one after `$1` where one is given.
select driver_id, available, lat, lng, at, version
from driver_state
where available
  and driver_id > coalesce($1::text, '')
order by driver_id
limit $2::bigint
