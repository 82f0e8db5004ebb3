-- Returns the open rides of a user, those that have not ended first, then the newest first. Each has the first seq of the user's
-- access and its head, except for the head of a ride in another shard. Every row also has the head and the beginning of the user's
-- own topic in the same snapshot. A user's topic that does not exist yet will begin after all erased ones (the counter `users`).
select coalesce(own.last_seq, erased.last_seq, 0) as last_seq,
       coalesce(own.begins_after, erased.last_seq, 0) as begins_after,
       open.ride_id,
       open.from_seq,
       open.ride_seq,
       open.is_ended
from (values (true)) as one_row (present)
left join (select last_seq, begins_after from topics where name = 'user/' || $1::text) as own on true
left join (select last_seq from topics where name = 'users') as erased on true
left join lateral (select listed.*
                   from ((select participant.ride_id, participant.from_seq, log.last_seq as ride_seq,
                                 ride.ended_at is not null as is_ended, participant.joined_at
                          from participants participant
                          join rides ride on ride.ride_id = participant.ride_id
                          join topics log on log.name = 'ride/' || participant.ride_id
                          where participant.user_id = $1
                            and participant.until_seq is null
                            and not participant.is_over
                          order by ride.ended_at is not null, participant.joined_at desc, participant.ride_id desc
                          limit $2::bigint)
                         union all
                         (select remote.ride_id, remote.from_seq, null, remote.is_ended, remote.joined_at
                          from remote_rides remote
                          where remote.user_id = $1
                            and remote.until_seq is null
                            and not remote.is_over
                          order by remote.is_ended, remote.joined_at desc, remote.ride_id desc
                          limit $2)) as listed
                   order by listed.is_ended, listed.joined_at desc, listed.ride_id desc
                   limit $2) as open on true
