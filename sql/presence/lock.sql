-- Locks the users' rows in one order everywhere. Later statements read the registrations with snapshots that are newer than these
-- locks.
select state.topic
from unnest($1::text[], $2::text[]) as wanted (topic, user_id)
join presence_states state on state.topic = wanted.topic and state.user_id = wanted.user_id
order by state.topic, state.user_id
for update of state
