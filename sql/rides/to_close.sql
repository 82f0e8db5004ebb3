-- Returns ended rides whose chat window has passed for everyone, by the database's clock, and that are not closed yet.
select ride_id
from rides
where ended_at is not null
  and closed_at is null
  and greatest(rider_closes_at, driver_closes_at) <= statement_timestamp()
order by greatest(rider_closes_at, driver_closes_at)
limit $1::bigint
