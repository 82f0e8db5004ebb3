-- Returns the rides of a participant, the last joined first, after a position in that order; optionally only those with a status.
select participant.ride_id, participant.joined_at as listed_at
from participants participant
join rides on rides.ride_id = participant.ride_id
where participant.user_id = $1::text
  and participant.until_seq is null
  and ($2::text is null or rides.status = $2)
  and (participant.joined_at, participant.ride_id) < ($3::timestamptz, $4::text)
order by participant.joined_at desc, participant.ride_id desc
limit $5::bigint
