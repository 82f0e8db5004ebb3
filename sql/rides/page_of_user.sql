-- Returns the rides of a participant, the last joined first, after a position in that order; optionally only those with a status. Rides
-- of other shards are listed as their shards have reported them.
select listed.ride_id, listed.listed_at
from ((select participant.ride_id, participant.joined_at as listed_at
       from participants participant
       join rides on rides.ride_id = participant.ride_id
       where participant.user_id = $1::text
         and participant.until_seq is null
         and ($2::text is null or rides.status = $2)
         and (participant.joined_at, participant.ride_id) < ($3::timestamptz, $4::text)
       order by participant.joined_at desc, participant.ride_id desc
       limit $5::bigint)
      union all
      (select remote.ride_id, remote.joined_at
       from remote_rides remote
       where remote.user_id = $1
         and remote.until_seq is null
         and ($2 is null or remote.status = $2)
         and (remote.joined_at, remote.ride_id) < ($3, $4)
       order by remote.joined_at desc, remote.ride_id desc
       limit $5)) as listed
order by listed.listed_at desc, listed.ride_id desc
limit $5
