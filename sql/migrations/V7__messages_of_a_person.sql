-- One person's content is found on the rides that they were on, so not every message has to be indexed by its sender: that is
-- asked for when somebody is erased, and each send had to keep it. Staff is on no ride, and says little.
create index participants_of_user on participants (user_id, ride_id);
create index messages_of_staff on messages (sender_id, ride_id, seq) where sender_role in ('support', 'system');
drop index messages_by_sender;
