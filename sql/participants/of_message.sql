-- The participants who may see the message `$2` of a ride, and when it was first reported as delivered to them and as read by them. Where
-- the ride's log no longer has the message, it has lost reports as well, and nothing is said. Nor of the sender `$3`.
select person.user_id, delivered.created_at as delivered_at, read.created_at as read_at
from (select distinct user_id
      from participants
      where ride_id = $1::text
        and from_seq <= $2::bigint
        and coalesce(until_seq, 9223372036854775807) >= $2) as person
left join lateral (select report.created_at
                   from events report
                   where report.topic = 'ride/' || $1
                     and report.seq > $2
                     and report.type in ('message:delivered', 'message:read')
                     and report.data::json ->> 'userId' = person.user_id
                     and (report.data::json ->> 'seq')::bigint >= $2
                     and person.user_id <> $3::text
                     and exists (select from events where topic = 'ride/' || $1 and seq = $2)
                   order by report.seq
                   limit 1) as delivered on true
left join lateral (select report.created_at
                   from events report
                   where report.topic = 'ride/' || $1
                     and report.seq > $2
                     and report.type = 'message:read'
                     and report.data::json ->> 'userId' = person.user_id
                     and (report.data::json ->> 'seq')::bigint >= $2
                     and person.user_id <> $3
                     and exists (select from events where topic = 'ride/' || $1 and seq = $2)
                   order by report.seq
                   limit 1) as read on true
order by person.user_id
