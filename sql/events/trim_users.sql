-- Takes what users were told longer than `$1` seconds ago: at most `$2` events.
with gone as materialized (select topic, seq
                           from events
                           where topic >= 'user/'
                             and topic < 'user0'
                             and created_at <= statement_timestamp() - make_interval(secs => $1::float8)
                           order by created_at
                           limit $2::bigint)
delete from events
using gone
where events.topic = gone.topic
  and events.seq = gone.seq
