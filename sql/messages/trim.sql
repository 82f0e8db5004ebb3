-- Takes messages of rides that ended longer than `$1` seconds ago, those of the oldest first: at most `$2`.
with old as materialized (select ride_id
                          from rides
                          where log_is_trimmed
                            and ended_at <= statement_timestamp() - make_interval(secs => $1::float8)
                          order by ended_at
                          limit 50),
     gone as materialized (select message.ride_id, message.seq
                           from old
                           cross join lateral (select ride_id, seq
                                               from messages
                                               where messages.ride_id = old.ride_id
                                               order by seq
                                               limit $2::bigint) as message
                           limit $2)
delete from messages
using gone
where messages.ride_id = gone.ride_id
  and messages.seq = gone.seq
