-- Returns the position of a ride in two lists: that of a current or former participant, and that of all rides.
select coalesce((select joined_at
                 from participants
                 where ride_id = $1::text
                   and user_id = $2::text
                 order by from_seq desc
                 limit 1),
                (select joined_at from remote_rides where ride_id = $1 and user_id = $2 and deleted_at is null)) as of_user,
       (select created_at from rides where ride_id = $1) as of_all
