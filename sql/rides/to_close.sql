-- Rides whose grace has passed, by the database's clock, and whose people have not been told.
select ride_id
from rides
where ended_at is not null
  and closed_at is null
  and ended_at <= statement_timestamp() - make_interval(secs => $1::float8)
order by ended_at
limit $2::bigint
