-- Rides as a list shows them: each as it is now, with its newest message and how many are unread, of those that are the reader's to
-- see: of each of their times on the ride. Where `$3` says so (staff), all are, unless the reader is on the ride; and where `$4`
-- does (the platform), none is read.
select snapshot.*, last.*, unread.count as unread
from ride_snapshots snapshot
cross join lateral (select case when not $4::boolean then (select receipts.read_seq
                                                           from receipts
                                                           where receipts.ride_id = snapshot.ride_id
                                                             and receipts.user_id = $2::text) end as read_seq) as mark
cross join lateral (select $3::boolean and not exists (select
                                                       from participants present
                                                       where present.ride_id = snapshot.ride_id
                                                         and present.user_id = $2
                                                         and present.until_seq is null) as everything) as sees
left join lateral (select message.*
                   from (select mine.from_seq, coalesce(mine.until_seq, 9223372036854775807) as until_seq
                         from participants mine
                         where mine.ride_id = snapshot.ride_id
                           and mine.user_id = $2
                           and not sees.everything
                         union all
                         select 0, 9223372036854775807
                         where sees.everything) as seen
                   cross join lateral (select id, seq, sender_id, sender_role, content, metadata, client_message_id,
                                              content_hash, created_at, edited_at, deleted_at, labels, reactions
                                       from messages
                                       where messages.ride_id = snapshot.ride_id
                                         and messages.seq >= seen.from_seq
                                         and messages.seq <= seen.until_seq
                                       order by messages.seq desc
                                       limit 1) as message
                   order by message.seq desc
                   limit 1) as last on true
cross join lateral (select count(*) as count
                    from (select mine.from_seq, coalesce(mine.until_seq, 9223372036854775807) as until_seq
                          from participants mine
                          where mine.ride_id = snapshot.ride_id
                            and mine.user_id = $2
                            and not sees.everything
                          union all
                          select 0, 9223372036854775807
                          where sees.everything) as seen
                    join messages on messages.ride_id = snapshot.ride_id
                                 and messages.seq > greatest(seen.from_seq, mark.read_seq)
                                 and messages.seq <= seen.until_seq
                    where messages.sender_id <> $2
                      and messages.deleted_at is null) as unread
where snapshot.ride_id = any ($1::text[])
