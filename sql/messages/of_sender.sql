-- What somebody has said, ride by ride, after the message `$3` of the ride `$2`: on the rides that they were on, and as staff on
-- any. Of what they have deleted the sender's own name may be left.
select id, ride_id, seq
from (
    (select said.id, said.ride_id, said.seq
     from (select distinct ride_id
           from participants
           where user_id = $1::text
             and ride_id >= $2::text) as mine
     join messages said on said.ride_id = mine.ride_id
     where said.sender_id = $1::text
       and said.sender_role in ('rider', 'driver')
       and (said.deleted_at is null or said.client_message_id is not null)
       and (said.ride_id, said.seq) > ($2::text, $3::bigint)
     order by mine.ride_id, said.seq
     limit $4::bigint)
    union all
    (select id, ride_id, seq
     from messages
     where sender_id = $1::text
       and sender_role in ('support', 'system')
       and (deleted_at is null or client_message_id is not null)
       and (ride_id, seq) > ($2::text, $3::bigint)
     order by ride_id, seq
     limit $4::bigint)
) as said
order by ride_id, seq
limit $4::bigint
