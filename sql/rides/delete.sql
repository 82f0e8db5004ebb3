-- Deletes rides without messages, and everything that is left of them. Their topics are locked first, as in every other statement
-- that writes to them. A topic that another transaction has locked is left to the next run. The rides are locked too, so their
-- conditions are checked against the newest row, and a ride that was reopened meanwhile is not deleted. The lists of users of other
-- shards lose the rides, too.
with expired as materialized (select ride_id
                              from rides
                              where log_is_trimmed
                                and ended_at <= statement_timestamp() - make_interval(secs => $1::float8)
                              order by ended_at
                              limit 50),
     deleted as materialized (select expired.ride_id, topics.name as topic
                              from expired
                              join topics on topics.name = 'ride/' || expired.ride_id
                              join rides on rides.ride_id = expired.ride_id
                              where rides.log_is_trimmed
                                and not exists (select from messages where messages.ride_id = expired.ride_id)
                              for update of topics, rides skip locked),
     deleted_events as (delete from events using deleted where events.topic = deleted.topic),
     deleted_presence as (delete from presence_states using deleted where presence_states.topic = deleted.topic),
     deleted_locations as (delete from ride_locations using deleted where ride_locations.ride_id = deleted.ride_id),
     deleted_receipts as (delete from receipts using deleted where receipts.ride_id = deleted.ride_id),
     deleted_undelivered as (delete from undelivered using deleted where undelivered.ride_id = deleted.ride_id),
     reported as (insert into outbox (shard, user_id, ride_id, added_at)
                  select distinct participants.user_shard, participants.user_id, participants.ride_id, statement_timestamp()
                  from deleted
                  join participants on participants.ride_id = deleted.ride_id
                  where participants.user_shard is not null),
     deleted_participants as (delete from participants using deleted where participants.ride_id = deleted.ride_id),
     deleted_topics as (delete from topics using deleted where topics.name = deleted.topic)
delete from rides
using deleted
where rides.ride_id = deleted.ride_id
