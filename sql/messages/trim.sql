-- Deletes at most `$2` messages of rides that ended longer than `$1` seconds ago, oldest rides first. Their topics are locked first, as
-- in every other statement that writes to them. A topic that another transaction has locked is left to the next run.
with expired as materialized (select ride_id
                              from rides
                              where log_is_trimmed
                                and ended_at <= statement_timestamp() - make_interval(secs => $1::float8)
                              order by ended_at
                              limit 50),
     locked as materialized (select expired.ride_id
                             from expired
                             join topics on topics.name = 'ride/' || expired.ride_id
                             for update of topics skip locked),
     deleted as materialized (select message.ride_id, message.seq
                              from locked
                              cross join lateral (select ride_id, seq
                                                  from messages
                                                  where messages.ride_id = locked.ride_id
                                                  order by seq
                                                  limit $2::bigint) as message
                              limit $2)
delete from messages
using deleted
where messages.ride_id = deleted.ride_id
  and messages.seq = deleted.seq
