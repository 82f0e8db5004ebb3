-- Sets drivers whose presence has ended to unavailable, in the transaction that has ended it.
update driver_state
set available = false,
    at        = clock_timestamp(),
    version   = greatest(driver_state.version + 1, (extract(epoch from clock_timestamp()) * 1000000)::bigint)
from presence_states state
where driver_state.driver_id = any ($1::text[])
  and driver_state.available
  and state.topic = 'drivers'
  and state.user_id = driver_state.driver_id
  and not state.online
returning driver_state.driver_id, driver_state.available, driver_state.lat, driver_state.lng, driver_state.at,
    driver_state.version
