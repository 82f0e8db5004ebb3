-- Rows to lock, where there are none yet.
insert into presence_states (ride_id, user_id, online, since, version, seq)
select ride_id, user_id, false, clock_timestamp(), 0, 0
from unnest($1::text[], $2::text[]) as came (ride_id, user_id)
order by ride_id collate "C", user_id collate "C"
on conflict (ride_id, user_id) do nothing
