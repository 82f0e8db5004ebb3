-- :crowds crowds of 500 rides, one after the other over a year; half of the last go on. The log of the last :kept is still
-- there, but for 50 rides of each. Riders have ten rides each; the 500 drivers one in every crowd.
insert into rides (ride_id, status, rider_id, driver_id, accepted, ended_at, closed_at, created_at, updated_at,
                   log_is_trimmed, rider_closes_at, driver_closes_at)
select 'ride_' || lpad(ride::text, 7, '0'),
       case when is_over then 'completed' else 'in_progress' end,
       'rider_' || ride % (:crowds * 50),
       'driver_' || number,
       true,
       case when is_over then began end,
       case when is_over then began end,
       began,
       began,
       crowd < :crowds - :kept or number < 50,
       case when is_over then began end,
       case when is_over then began end
from generate_series(0, :crowds - 1) as crowd,
     generate_series(0, 499) as number,
     lateral (select now() - (:crowds - crowd) * (interval '365 days' / :crowds) as began,
                     crowd < :crowds - 1 or number < 250 as is_over,
                     crowd * 500 + number as ride) as named;

-- An event for who is on the ride, then three for each message: said, delivered, read.
insert into topics (name, last_seq)
select 'ride/ride_' || lpad((crowd * 500 + number)::text, 7, '0'), 3 * messages + 1
from generate_series(0, :crowds - 1) as crowd, numbers;

insert into participants (ride_id, user_id, role, from_seq, joined_at, is_over)
select ride.ride_id, person.user_id, person.role, 1, ride.created_at, ride.closed_at is not null
from rides ride,
     lateral (values (ride.rider_id, 'rider'), (ride.driver_id, 'driver')) as person (user_id, role);

-- Everything is read, but on the rides that go on, where four messages are not.
insert into receipts (ride_id, user_id, role, delivered_seq, read_seq)
select ride.ride_id, person.user_id, person.role, last_seq, case when closed_at is null then last_seq - 12 else last_seq end
from rides ride
join topics on topics.name = 'ride/' || ride.ride_id,
     lateral (values (ride.rider_id, 'rider'), (ride.driver_id, 'driver')) as person (user_id, role);
