-- Takes all that is left of rides whose messages are gone. Their topics are locked first, as by all who write on them;
-- one that somebody else holds waits for the next time.
with old as materialized (select ride_id
                          from rides
                          where log_is_trimmed
                            and ended_at <= statement_timestamp() - make_interval(secs => $1::float8)
                          order by ended_at
                          limit 50),
     gone as materialized (select old.ride_id, topics.name as topic
                           from old
                           join topics on topics.name = 'ride/' || old.ride_id
                           where not exists (select from messages where messages.ride_id = old.ride_id)
                           for update of topics skip locked),
     left_of_log as (delete from events using gone where events.topic = gone.topic),
     left_of_presence as (delete from presence_states using gone where presence_states.topic = gone.topic),
     left_of_position as (delete from ride_locations using gone where ride_locations.ride_id = gone.ride_id),
     left_of_receipts as (delete from receipts using gone where receipts.ride_id = gone.ride_id),
     left_of_pushes as (delete from undelivered using gone where undelivered.ride_id = gone.ride_id),
     left_of_people as (delete from participants using gone where participants.ride_id = gone.ride_id),
     left_of_topic as (delete from topics using gone where topics.name = gone.topic)
delete from rides
using gone
where rides.ride_id = gone.ride_id
