-- Sets whether each user is online: connected to a replica whose lease holds, or with a registration that has not expired.
-- Returns the users for whom that is a change. The topic `drivers` has no log.
update presence_states state
set online  = actual.online,
    since   = clock_timestamp(),
    version = greatest(state.version + 1, (extract(epoch from clock_timestamp()) * 1000000)::bigint),
    seq     = coalesce(log.last_seq, 0)
from (select wanted.topic,
             wanted.user_id,
             exists (select
                     from presence
                     left join replicas on replicas.replica = presence.replica
                     where presence.topic = wanted.topic
                       and presence.user_id = wanted.user_id
                       and greatest(presence.expires_at, replicas.expires_at) > clock_timestamp()) as online
      from unnest($1::text[], $2::text[]) as wanted (topic, user_id)) as actual
left join topics log on log.name = actual.topic
where state.topic = actual.topic
  and state.user_id = actual.user_id
  and state.online <> actual.online
returning state.topic, state.user_id, state.online, state.since, state.version, state.seq
