select ride_id, status, rider_id, driver_id, accepted, ended_at, closed_at,
       created_at as ride_created_at, updated_at as ride_updated_at
from rides
where ride_id = any ($1::text[])
