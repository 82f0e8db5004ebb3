-- The newest messages of a ride before a seq, no older than the part of the log that is the reader's, each
-- beside the ride as it was at that moment; one row without a message where there is none.
with snapshot as materialized (select * from ride_snapshots where ride_id = $1::text)
select snapshot.*, page.*
from snapshot
left join lateral (select id, seq, sender_id, sender_role, content, metadata, client_message_id, content_hash,
                          created_at, edited_at, deleted_at, labels, reactions
                   from messages
                   where messages.ride_id = snapshot.ride_id
                     and messages.seq < $3::bigint
                     and messages.seq >= coalesce((select max(from_seq)
                                                   from participants mine
                                                   where mine.ride_id = $1
                                                     and mine.user_id = $2::text
                                                     and mine.until_seq is null), 1)
                   order by messages.seq desc
                   limit $4::bigint) as page on true
order by page.seq
