-- Erases what a user was told on their own topic, and the topic; where they were, when they were online, whether they took rides, and
-- the subscriptions of their browsers.
-- Returns how far erasures count now, and what is to be told of the driver, if the user was one. The topic is locked, by a statement
-- before this one.
--
-- `begins_after` of the next topic of this name is more than the last seq of this one: whoever reads on finds a hole there, and so
-- drops what it has in memory. A registration of presence that still holds is left: it says that the user is connected now.
with positions as (delete from ride_locations where driver_id = $1::text),
     notices as (delete from events where topic = 'user/' || $1),
     subscriptions as (delete from push_subscriptions where user_id = $1),
     attended as materialized (select topic
                               from (select 'drivers' as topic
                                     union
                                     select 'ride/' || ride_id from participants where user_id = $1) as attended
                               order by topic collate "C"),
     offline as materialized (select state.topic
                              from attended
                              cross join lateral (select topic
                                                  from presence_states
                                                  where presence_states.topic = attended.topic
                                                    and presence_states.user_id = $1
                                                    and not presence_states.online
                                                  for update) as state),
     seen as (delete from presence_states
              using offline
              where presence_states.topic = offline.topic
                and presence_states.user_id = $1),
     availability as (delete from driver_state where driver_id = $1 returning driver_id, version),
     own as (delete from topics where name = 'user/' || $1 returning last_seq),
     counted as (update topics
                 set last_seq = greatest(last_seq, coalesce((select last_seq from own), 0)) + 1
                 where name = 'users'
                 returning last_seq)
select counted.last_seq as erasures, availability.driver_id, false as available, null::float8 as lat, null::float8 as lng,
       clock_timestamp() as at,
       greatest(availability.version + 1, (extract(epoch from clock_timestamp()) * 1000000)::bigint) as version
from counted
left join availability on true
