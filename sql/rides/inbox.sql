-- Returns the entries of a list of rides: each ride's current snapshot, its newest message, and the number of unread messages.
-- Messages count only within the reader's access intervals. With `$3` (staff) the whole log is visible, unless the reader is a
-- participant. With `$4` (the platform) every message counts as unread.
select snapshot.*, last_message.*, unread.count as unread
from ride_snapshots snapshot
cross join lateral (select case when not $4::boolean then (select receipts.read_seq
                                                           from receipts
                                                           where receipts.ride_id = snapshot.ride_id
                                                             and receipts.user_id = $2::text) end as read_seq) as own_receipt
cross join lateral (select $3::boolean and not exists (select
                                                       from participants participant
                                                       where participant.ride_id = snapshot.ride_id
                                                         and participant.user_id = $2
                                                         and participant.until_seq is null) as whole_log) as scope
left join lateral (select message.*
                   from (select access.from_seq, coalesce(access.until_seq, 9223372036854775807) as until_seq
                         from participants access
                         where access.ride_id = snapshot.ride_id
                           and access.user_id = $2
                           and not scope.whole_log
                         union all
                         select 0, 9223372036854775807
                         where scope.whole_log) as visible
                   cross join lateral (select messages.*
                                       from message_rows messages
                                       where messages.ride_id = snapshot.ride_id
                                         and messages.seq >= visible.from_seq
                                         and messages.seq <= visible.until_seq
                                       order by messages.seq desc
                                       limit 1) as message
                   order by message.seq desc
                   limit 1) as last_message on true
cross join lateral (select count(*) as count
                    from (select access.from_seq, coalesce(access.until_seq, 9223372036854775807) as until_seq
                          from participants access
                          where access.ride_id = snapshot.ride_id
                            and access.user_id = $2
                            and not scope.whole_log
                          union all
                          select 0, 9223372036854775807
                          where scope.whole_log) as visible
                    join messages on messages.ride_id = snapshot.ride_id
                                 and messages.seq > greatest(visible.from_seq, own_receipt.read_seq)
                                 and messages.seq <= visible.until_seq
                    where messages.sender_id <> $2
                      and messages.deleted_at is null) as unread
where snapshot.ride_id = any ($1::text[])
