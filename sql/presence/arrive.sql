insert into presence (topic, user_id, replica)
select topic, user_id, $3::uuid
from unnest($1::text[], $2::text[]) as came (topic, user_id)
order by topic collate "C", user_id collate "C"
on conflict (topic, user_id, replica) do nothing
