insert into messages (id, ride_id, seq, sender_id, sender_role, content, client_message_id, content_hash, created_at)
select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7' || substr(hash, 1, 3) || '8'
           || substr(hash, 4, 15))::uuid,
       'ride_' || lpad(ride::text, 7, '0'),
       3 * message - 1,
       case when message % 2 = 0 then 'rider_' || ride % (:cohorts * 50) else 'driver_' || number end,
       case when message % 2 = 0 then 'rider' else 'driver' end,
       'I am at the main gate, beside the taxi stand. Where are you?',
       'm-' || message,
       decode(hash, 'hex'),
       at
from generate_series(0, :cohorts - 1) as cohort_number,
     cohort,
     lateral (select cohort_number * 500 + number as ride,
                     md5((cohort_number * 10000 + place)::text) as hash,
                     now() - (:cohorts - cohort_number - place / 10000.0) * (interval '365 days' / :cohorts) as at) as made;
