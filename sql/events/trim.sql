-- Deletes at most `$2` events of rides that ended longer than `$1` seconds ago, oldest rides first. Their topics are locked first, as
-- in every other statement that writes to them. A topic that another transaction has locked is left to the next run.
with expired as materialized (select 'ride/' || ride_id as topic
                              from rides
                              where closed_at is not null
                                and not log_is_trimmed
                                and ended_at <= statement_timestamp() - make_interval(secs => $1::float8)
                              order by ended_at
                              limit 50),
     locked as materialized (select topics.name as topic
                             from expired
                             join topics on topics.name = expired.topic
                             for update of topics skip locked),
     deleted as materialized (select event.topic, event.seq
                              from locked
                              cross join lateral (select topic, seq
                                                  from events
                                                  where events.topic = locked.topic
                                                  order by seq
                                                  limit $2::bigint) as event
                              limit $2)
delete from events
using deleted
where events.topic = deleted.topic
  and events.seq = deleted.seq
