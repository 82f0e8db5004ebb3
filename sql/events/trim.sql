-- Takes events of rides that ended longer than `$1` seconds ago, those of the oldest first: at most `$2`.
with old as materialized (select 'ride/' || ride_id as topic
                          from rides
                          where closed_at is not null
                            and not log_is_trimmed
                            and ended_at <= statement_timestamp() - make_interval(secs => $1::float8)
                          order by ended_at
                          limit 50),
     gone as materialized (select event.topic, event.seq
                           from old
                           cross join lateral (select topic, seq
                                               from events
                                               where events.topic = old.topic
                                               order by seq
                                               limit $2::bigint) as event
                           limit $2)
delete from events
using gone
where events.topic = gone.topic
  and events.seq = gone.seq
