-- Returns the number of unread messages of each ride that a user participates in, if there are any. Closed rides without unread
-- messages are not looked at, so the time does not grow with the user's past.
select participant.ride_id, unread.count
from participants participant
left join receipts receipt on receipt.ride_id = participant.ride_id and receipt.user_id = participant.user_id
cross join lateral (select count(*) as count
                    from participants access
                    join messages on messages.ride_id = access.ride_id
                                 and messages.seq > greatest(access.from_seq, receipt.read_seq)
                                 and messages.seq <= coalesce(access.until_seq, 9223372036854775807)
                    where access.ride_id = participant.ride_id
                      and access.user_id = participant.user_id
                      and messages.sender_id <> participant.user_id
                      and messages.deleted_at is null) as unread
where participant.user_id = $1::text
  and participant.until_seq is null
  and (participant.is_over and participant.is_read) is not true
  and unread.count > 0
order by participant.ride_id
