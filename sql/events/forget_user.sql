-- What a user was told on their own topic, and where they were: of a person who is erased.
with positions as (delete from ride_locations where driver_id = $1::text),
     availability as (delete from driver_state where driver_id = $1)
delete from events
where topic = 'user/' || $1
