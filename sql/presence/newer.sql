-- What a replica has not heard of those who are on rides that are being followed on it: `$1` are the rides, the others
-- what it has heard.
select state.ride_id, state.user_id, state.online, state.since, state.version, state.seq
from unnest($1::text[]) as followed (ride_id)
join presence_states state on state.ride_id = followed.ride_id
left join unnest($2::text[], $3::text[], $4::bigint[]) as known (ride_id, user_id, version)
    on known.ride_id = state.ride_id and known.user_id = state.user_id
where state.version > coalesce(known.version, 0)
