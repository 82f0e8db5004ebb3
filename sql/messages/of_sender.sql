-- Returns the messages of a user, in order of ride and seq, after the message `$3` of the ride `$2`. These are the messages on rides
-- that the user participated in, and those that the user sent as staff. A deleted message is included while it still has its
-- client message id.
select id, ride_id, seq
from (
    (select message.id, message.ride_id, message.seq
     from (select distinct ride_id
           from participants
           where user_id = $1::text
             and ride_id >= $2::text) as own_rides
     join messages message on message.ride_id = own_rides.ride_id
     where message.sender_id = $1::text
       and message.sender_role in ('rider', 'driver')
       and (message.deleted_at is null or message.client_message_id is not null)
       and (message.ride_id, message.seq) > ($2::text, $3::bigint)
     order by own_rides.ride_id, message.seq
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
) as authored
order by ride_id, seq
limit $4::bigint
