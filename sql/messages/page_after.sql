-- Like `page_before.sql`, for the oldest messages after a seq.
with snapshot as materialized (select * from ride_snapshots where ride_id = $1::text),
     scope as materialized (select $5::boolean and not exists (select
                                                               from participants participant
                                                               where participant.ride_id = $1
                                                                 and participant.user_id = $2::text
                                                                 and participant.until_seq is null) as whole_log),
     visible as materialized (select access.from_seq, coalesce(access.until_seq, 9223372036854775807) as until_seq
                              from participants access
                              where access.ride_id = $1
                                and access.user_id = $2
                                and not (select scope.whole_log from scope)
                              union all
                              select 0, 9223372036854775807
                              where (select scope.whole_log from scope))
select snapshot.*, page.*
from snapshot
left join lateral (select *
                   from (select next.*,
                                count(*) over () as found,
                                coalesce(octet_length(next.content), 0)
                                  + coalesce(octet_length(next.metadata), 0) as own_bytes,
                                sum(coalesce(octet_length(next.content), 0) + coalesce(octet_length(next.metadata), 0))
                                  over (order by next.seq rows unbounded preceding) as bytes
                         from (select message.*
                               from visible
                               cross join lateral (select messages.*
                                                   from message_rows messages
                                                   where messages.ride_id = snapshot.ride_id
                                                     and messages.seq > $3::bigint
                                                     and messages.seq >= visible.from_seq
                                                     and messages.seq <= visible.until_seq
                                                   order by messages.seq
                                                   limit $4::bigint) as message
                               order by message.seq
                               limit $4) as next) as counted
                   where bytes - own_bytes < $6::bigint) as page on true
order by page.seq
