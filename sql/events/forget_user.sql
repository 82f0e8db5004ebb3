-- What a user was told on their own topic, where they were, what was not delivered to them, and the subscriptions of their browsers: of
-- a person who is erased.
with positions as (delete from ride_locations where driver_id = $1::text),
     availability as (delete from driver_state where driver_id = $1),
     pushes as (delete from undelivered where user_id = $1),
     subscriptions as (delete from push_subscriptions where user_id = $1)
delete from events
where topic = 'user/' || $1
