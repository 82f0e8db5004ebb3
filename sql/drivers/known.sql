-- Which of these drivers have a state.
select driver_id
from driver_state
where driver_id = any ($1::text[])
