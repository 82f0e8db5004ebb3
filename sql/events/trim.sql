-- Takes events of rides that ended longer than `$1` seconds ago, those of the oldest first: at most `$2`. Their topics are
-- locked first, as by all who write on them; one that somebody else holds waits for the next time.
with old as materialized (select 'ride/' || ride_id as topic
                          from rides
                          where closed_at is not null
                            and not log_is_trimmed
                            and ended_at <= statement_timestamp() - make_interval(secs => $1::float8)
                          order by ended_at
                          limit 50),
     held as materialized (select topics.name as topic
                           from old
                           join topics on topics.name = old.topic
                           for update of topics skip locked),
     gone as materialized (select event.topic, event.seq
                           from held
                           cross join lateral (select topic, seq
                                               from events
                                               where events.topic = held.topic
                                               order by seq
                                               limit $2::bigint) as event
                           limit $2)
delete from events
using gone
where events.topic = gone.topic
  and events.seq = gone.seq
