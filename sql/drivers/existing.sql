-- Returns those of the drivers that have a row.
select driver_id
from driver_state
where driver_id = any ($1::text[])
