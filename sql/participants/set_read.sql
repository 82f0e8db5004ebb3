-- Records which participants of closed rides have no unread messages. The rides' topics are locked. A closed ride receives no further
-- messages, so its unread messages only become fewer.
update participants
set is_read = true
where participants.ride_id = any ($1::text[])
  and participants.is_over
  and not participants.is_read
  and not exists (select
                  from participants access
                  left join receipts on receipts.ride_id = access.ride_id and receipts.user_id = access.user_id
                  join messages on messages.ride_id = access.ride_id
                               and messages.seq > greatest(access.from_seq, receipts.read_seq)
                               and messages.seq <= coalesce(access.until_seq, 9223372036854775807)
                  where access.ride_id = participants.ride_id
                    and access.user_id = participants.user_id
                    and messages.sender_id <> access.user_id
                    and messages.deleted_at is null)
