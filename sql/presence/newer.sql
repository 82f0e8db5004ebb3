-- What a replica has not heard of those who are on rides that are being followed on it: all of a ride whose versions do
-- not add up to what it has heard. Versions only grow, so nothing new adds up to the same.
select state.ride_id, state.user_id, state.online, state.since, state.version, state.seq
from unnest($1::text[], $2::bigint[]) as known (ride_id, total)
cross join lateral (select ride_id, user_id, online, since, version, seq
                    from presence_states
                    where presence_states.ride_id = known.ride_id
                      and presence_states.version > 0) as state
where known.total <> (select sum(heard.version)
                      from presence_states heard
                      where heard.ride_id = known.ride_id)
