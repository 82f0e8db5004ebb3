-- A user's unread messages are counted without the past rides in which the user has read everything.

-- Whether the ride is closed and the participant has no unread message on it. False is always correct: the messages are then counted.
alter table participants add column is_read boolean not null default false;

update participants
set is_read = true
where participants.is_over
  and participants.until_seq is null
  and not exists (select
                  from participants access
                  left join receipts on receipts.ride_id = access.ride_id and receipts.user_id = access.user_id
                  join messages on messages.ride_id = access.ride_id
                               and messages.seq > greatest(access.from_seq, receipts.read_seq)
                               and messages.seq <= coalesce(access.until_seq, 9223372036854775807)
                  where access.ride_id = participants.ride_id
                    and access.user_id = participants.user_id
                    and messages.sender_id <> access.user_id
                    and messages.deleted_at is null);

-- `is_over` is in the condition because a replica of an earlier version reopens a ride without resetting `is_read`. With `is not true`,
-- Postgres does not infer the condition from `not is_over`: the query for open rides has a smaller index.
create index participants_unread on participants (user_id, ride_id)
    where until_seq is null and (is_over and is_read) is not true;
