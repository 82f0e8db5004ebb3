-- Whether each is there now, on any replica whose lease holds; those for whom that is news.
update presence_states state
set online  = truth.online,
    since   = clock_timestamp(),
    version = greatest(state.version + 1, (extract(epoch from clock_timestamp()) * 1000000)::bigint),
    seq     = topic.last_seq
from (select wanted.ride_id,
             wanted.user_id,
             exists (select
                     from presence
                     join replicas on replicas.replica = presence.replica and replicas.expires_at > clock_timestamp()
                     where presence.ride_id = wanted.ride_id
                       and presence.user_id = wanted.user_id) as online
      from unnest($1::text[], $2::text[]) as wanted (ride_id, user_id)) as truth
join topics topic on topic.name = 'ride/' || truth.ride_id
where state.ride_id = truth.ride_id
  and state.user_id = truth.user_id
  and state.online <> truth.online
returning state.ride_id, state.user_id, state.online, state.since, state.version, state.seq
