-- Takes messages of rides that ended longer than `$1` seconds ago, those of the oldest first: at most `$2`. Their
-- topics are locked first, as by all who write on them; one that somebody else holds waits for the next time.
with old as materialized (select ride_id
                          from rides
                          where log_is_trimmed
                            and ended_at <= statement_timestamp() - make_interval(secs => $1::float8)
                          order by ended_at
                          limit 50),
     held as materialized (select old.ride_id
                           from old
                           join topics on topics.name = 'ride/' || old.ride_id
                           for update of topics skip locked),
     gone as materialized (select message.ride_id, message.seq
                           from held
                           cross join lateral (select ride_id, seq
                                               from messages
                                               where messages.ride_id = held.ride_id
                                               order by seq
                                               limit $2::bigint) as message
                           limit $2)
delete from messages
using gone
where messages.ride_id = gone.ride_id
  and messages.seq = gone.seq
