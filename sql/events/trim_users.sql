-- Deletes at most `$2` events of user topics that are older than `$1` seconds.
with expired as materialized (select topic, seq
                              from events
                              where topic >= 'user/'
                                and topic < 'user0'
                                and created_at <= statement_timestamp() - make_interval(secs => $1::float8)
                              order by created_at
                              limit $2::bigint)
delete from events
using expired
where events.topic = expired.topic
  and events.seq = expired.seq
