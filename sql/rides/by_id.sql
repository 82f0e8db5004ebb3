-- Returns rides by id.
select ride_id, status, rider_id, driver_id, accepted, ended_at, closed_at,
       created_at as ride_created_at, updated_at as ride_updated_at,
       chat_opens_at, rider_grace_seconds, driver_grace_seconds, rider_closes_at, driver_closes_at, closed_seq
from rides
where ride_id = any ($1::text[])
