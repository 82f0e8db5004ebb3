insert into presence (ride_id, user_id, replica)
select ride_id, user_id, $3
from unnest($1::text[], $2::text[]) as came (ride_id, user_id)
order by ride_id collate "C", user_id collate "C"
on conflict (ride_id, user_id, replica) do nothing
