-- The same for the oldest messages after a seq.
with snapshot as materialized (select * from ride_snapshots where ride_id = $1::text)
select snapshot.*, page.*
from snapshot
left join lateral (select *
                   from (select next.*,
                                count(*) over () as found,
                                coalesce(octet_length(next.content), 0)
                                  + coalesce(octet_length(next.metadata), 0) as own_bytes,
                                sum(coalesce(octet_length(next.content), 0) + coalesce(octet_length(next.metadata), 0))
                                  over (order by next.seq rows unbounded preceding) as bytes
                         from (select id, seq, sender_id, sender_role, content, metadata, client_message_id,
                                      content_hash, created_at, edited_at, deleted_at, reactions
                               from messages
                               where messages.ride_id = snapshot.ride_id
                                 and messages.seq > $3::bigint
                                 and messages.seq >= coalesce((select max(from_seq)
                                                               from participants mine
                                                               where mine.ride_id = $1
                                                                 and mine.user_id = $2::text
                                                                 and mine.until_seq is null), 1)
                               order by messages.seq
                               limit $4::bigint) as next) as counted
                   where bytes - own_bytes < $5::bigint) as page on true
order by page.seq
