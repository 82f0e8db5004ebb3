-- Erases a user's own topic and its events, locations, past presence, availability and push subscriptions. Returns the new
-- erasure counter, and the state update to publish if the user was a driver. A statement before this one has locked the topic.
--
-- `begins_after` of the next topic with this name is greater than the last seq of this one. A reader that resumes therefore finds
-- a gap and drops its in-memory copy. A presence registration that still holds is not deleted: the user is connected now.
with locations as (delete from ride_locations where driver_id = $1::text),
     own_events as (delete from events where topic = 'user/' || $1),
     subscriptions as (delete from push_subscriptions where user_id = $1),
     user_topics as materialized (select topic
                                  from (select 'drivers' as topic
                                        union
                                        select 'ride/' || ride_id from participants where user_id = $1) as user_topics
                                  order by topic collate "C"),
     offline as materialized (select state.topic
                              from user_topics
                              cross join lateral (select topic
                                                  from presence_states
                                                  where presence_states.topic = user_topics.topic
                                                    and presence_states.user_id = $1
                                                    and not presence_states.online
                                                  for update) as state),
     past_presence as (delete from presence_states
                       using offline
                       where presence_states.topic = offline.topic
                         and presence_states.user_id = $1),
     availability as (delete from driver_state where driver_id = $1 returning driver_id, version),
     own_topic as (delete from topics where name = 'user/' || $1 returning last_seq),
     counter as (update topics
                 set last_seq = greatest(last_seq, coalesce((select last_seq from own_topic), 0)) + 1
                 where name = 'users'
                 returning last_seq)
select counter.last_seq as erasures, availability.driver_id, false as available, null::float8 as lat, null::float8 as lng,
       clock_timestamp() as at,
       greatest(availability.version + 1, (extract(epoch from clock_timestamp()) * 1000000)::bigint) as version
from counter
left join availability on true
