-- The logs of the last :kept cohorts, except those that retention has deleted.
insert into events (topic, seq, type, data, created_at)
select 'ride/' || ride_id,
       3 * message - 1 + what,
       (array ['message:new', 'message:delivered', 'message:read'])[what + 1],
       case what
           when 0 then '{"id":"' || name || '","rideId":"' || ride_id || '","seq":' || 3 * message - 1
               || ',"senderId":"driver_' || number || '","senderRole":"driver","content":"I am at the main gate, beside '
               || 'the taxi stand. Where are you?","metadata":null,"clientMessageId":"m-' || message
               || '","createdAt":"2026-11-23T02:44:18.868Z","editedAt":null,"deletedAt":null,"reactions":[],'
               || '"isDelivered":false,"isRead":false}'
           else '{"rideId":"' || ride_id || '","userId":"driver_' || number || '","seq":' || 3 * message - 1
               || ',"messageId":"' || name || '","at":"2026-11-23T02:44:18.868Z"}'
       end,
       at
from generate_series(:cohorts - :kept, :cohorts - 1) as cohort_number,
     cohort,
     generate_series(0, 2) as what,
     lateral (select 'ride_' || lpad((cohort_number * 500 + number)::text, 7, '0') as ride_id,
                     left(md5((cohort_number * 10000 + place)::text), 28) || '0000' as name,
                     now() - (:cohorts - cohort_number - place / 10000.0) * (interval '365 days' / :cohorts) as at) as made
where number >= 50;

insert into events (topic, seq, type, data, created_at)
select 'ride/' || ride_id, 1, 'ride:participants', '{"ride":{"rideId":"' || ride_id || '"},"joined":[],"left":[]}', created_at
from rides
where not log_is_trimmed;
