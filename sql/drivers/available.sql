-- Returns the available drivers in order of id, after `$1` if it is given.
select driver_id, available, lat, lng, at, version
from driver_state
where available
  and driver_id > coalesce($1::text, '')
order by driver_id
limit $2::bigint
