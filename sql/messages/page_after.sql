-- The same for the oldest messages after a seq.
with snapshot as materialized (select * from ride_snapshots where ride_id = $1::text),
     sees as materialized (select $5::boolean and not exists (select
                                                              from participants present
                                                              where present.ride_id = $1
                                                                and present.user_id = $2::text
                                                                and present.until_seq is null) as everything),
     seen as materialized (select mine.from_seq, coalesce(mine.until_seq, 9223372036854775807) as until_seq
                           from participants mine
                           where mine.ride_id = $1
                             and mine.user_id = $2
                             and not (select sees.everything from sees)
                           union all
                           select 0, 9223372036854775807
                           where (select sees.everything from sees))
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
                               from seen
                               cross join lateral (select id, seq, sender_id, sender_role, content, metadata, client_message_id,
                                                          content_hash, created_at, edited_at, deleted_at, labels, reactions
                                                   from messages
                                                   where messages.ride_id = snapshot.ride_id
                                                     and messages.seq > $3::bigint
                                                     and messages.seq >= seen.from_seq
                                                     and messages.seq <= seen.until_seq
                                                   order by messages.seq
                                                   limit $4::bigint) as message
                               order by message.seq
                               limit $4) as next) as counted
                   where bytes - own_bytes < $6::bigint) as page on true
order by page.seq
