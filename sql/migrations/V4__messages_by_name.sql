-- The names that senders gave, by one expression that no other index begins with. As long as this one began with
-- `ride_id` like that of the log, a plan made while the table was small could take the other, and then read all messages
-- of each ride for each that was sent, until ANALYZE next came by.
create unique index messages_by_name on messages ((ride_id || '/' || sender_id), client_message_id)
    where client_message_id is not null;
drop index messages_by_client_id;
