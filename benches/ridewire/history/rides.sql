-- :cohorts cohorts of 500 rides, spread over a year. Half of the last cohort is in progress. The last :kept cohorts still have
-- their logs, except for 50 rides each. Each rider has ten rides. Each of the 500 drivers has one ride in every cohort.
insert into rides (ride_id, status, rider_id, driver_id, accepted, ended_at, closed_at, created_at, updated_at,
                   log_is_trimmed, rider_closes_at, driver_closes_at)
select 'ride_' || lpad(ride::text, 7, '0'),
       case when is_over then 'completed' else 'in_progress' end,
       'rider_' || ride % (:cohorts * 50),
       'driver_' || number,
       true,
       case when is_over then began end,
       case when is_over then began end,
       began,
       began,
       cohort < :cohorts - :kept or number < 50,
       case when is_over then began end,
       case when is_over then began end
from generate_series(0, :cohorts - 1) as cohort,
     generate_series(0, 499) as number,
     lateral (select now() - (:cohorts - cohort) * (interval '365 days' / :cohorts) as began,
                     cohort < :cohorts - 1 or number < 250 as is_over,
                     cohort * 500 + number as ride) as named;

-- The event with the participants, then three events for each message: new, delivered, read.
insert into topics (name, last_seq)
select 'ride/ride_' || lpad((cohort * 500 + number)::text, 7, '0'), 3 * messages + 1
from generate_series(0, :cohorts - 1) as cohort, numbers;

insert into participants (ride_id, user_id, role, from_seq, joined_at, is_over, is_read)
select ride.ride_id, person.user_id, person.role, 1, ride.created_at, ride.closed_at is not null, ride.closed_at is not null
from rides ride,
     lateral (values (ride.rider_id, 'rider'), (ride.driver_id, 'driver')) as person (user_id, role);

-- Everything is read, except the last four messages of rides in progress.
insert into receipts (ride_id, user_id, role, delivered_seq, read_seq)
select ride.ride_id, person.user_id, person.role, last_seq, case when closed_at is null then last_seq - 12 else last_seq end
from rides ride
join topics on topics.name = 'ride/' || ride.ride_id,
     lateral (values (ride.rider_id, 'rider'), (ride.driver_id, 'driver')) as person (user_id, role);
