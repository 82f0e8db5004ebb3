-- Where a ride is in the lists of rides: in that of a user who is or was on it, and in that of all rides.
select (select joined_at
        from participants
        where ride_id = $1::text
          and user_id = $2::text
        order by from_seq desc
        limit 1) as of_user,
       (select created_at from rides where ride_id = $1) as of_all
