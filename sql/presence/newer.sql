-- Returns presence that a replica does not have, for the rides that it has subscribers of. It returns all users of a ride whose
-- versions do not add up to the replica's sum. Versions only grow, so a change always changes the sum.
select state.topic, state.user_id, state.online, state.since, state.version, state.seq
from unnest($1::text[], $2::bigint[]) as known (topic, total)
cross join lateral (select topic, user_id, online, since, version, seq
                    from presence_states
                    where presence_states.topic = known.topic
                      and presence_states.version > 0) as state
where known.total <> (select sum(states.version)
                      from presence_states states
                      where states.topic = known.topic)
