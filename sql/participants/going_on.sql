-- The rides that a user is on and that are not over for good, those that go on first, the newest of them first: each with the
-- first seq that is the user's and the end of its log; and where the user's own log begins and ends at that moment. One that is not
-- there yet will begin after all that were erased (`users`).
select coalesce(own.last_seq, erased.last_seq, 0) as last_seq,
       coalesce(own.begins_after, erased.last_seq, 0) as begins_after,
       mine.ride_id,
       mine.from_seq,
       mine.ride_seq,
       mine.is_ended
from (values (true)) as always (there)
left join (select last_seq, begins_after from topics where name = 'user/' || $1::text) as own on true
left join (select last_seq from topics where name = 'users') as erased on true
left join lateral (select joined.ride_id, joined.from_seq, log.last_seq as ride_seq, ride.ended_at is not null as is_ended
                   from participants joined
                   join rides ride on ride.ride_id = joined.ride_id
                   join topics log on log.name = 'ride/' || joined.ride_id
                   where joined.user_id = $1
                     and joined.until_seq is null
                     and not joined.is_over
                   order by ride.ended_at is not null, joined.joined_at desc, joined.ride_id desc
                   limit $2::bigint) as mine on true
