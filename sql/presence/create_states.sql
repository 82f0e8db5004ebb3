-- Creates the rows to lock for users that have none.
insert into presence_states (topic, user_id, online, since, version, seq)
select topic, user_id, false, clock_timestamp(), 0, 0
from unnest($1::text[], $2::text[]) as connected (topic, user_id)
order by topic collate "C", user_id collate "C"
on conflict (topic, user_id) do nothing
