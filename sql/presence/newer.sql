-- What a replica has not heard of those who are on rides that are being followed on it: all of a ride whose versions do
-- not add up to what it has heard. Versions only grow, so nothing new adds up to the same.
select state.topic, state.user_id, state.online, state.since, state.version, state.seq
from unnest($1::text[], $2::bigint[]) as known (topic, total)
cross join lateral (select topic, user_id, online, since, version, seq
                    from presence_states
                    where presence_states.topic = known.topic
                      and presence_states.version > 0) as state
where known.total <> (select sum(heard.version)
                      from presence_states heard
                      where heard.topic = known.topic)
