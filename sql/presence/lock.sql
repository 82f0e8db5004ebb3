-- In one order everywhere. What is there is looked at by later statements, whose snapshots are younger than these locks.
select state.ride_id
from unnest($1::text[], $2::text[]) as wanted (ride_id, user_id)
join presence_states state on state.ride_id = wanted.ride_id and state.user_id = wanted.user_id
order by state.ride_id, state.user_id
for update of state
