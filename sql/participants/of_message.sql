-- Returns the participants who may see the message `$2` of a ride, and when it was first reported as delivered to them and as
-- read by them. If the message has expired from the ride's log, reports have expired too, and no times are returned. Nor are they
-- for the sender `$3`.
select participant.user_id, delivered.created_at as delivered_at, read.created_at as read_at
from (select distinct user_id
      from participants
      where ride_id = $1::text
        and from_seq <= $2::bigint
        and coalesce(until_seq, 9223372036854775807) >= $2) as participant
left join lateral (select report.created_at
                   from events report
                   where report.topic = 'ride/' || $1
                     and report.seq > $2
                     and report.type in ('message:delivered', 'message:read')
                     and report.data::json ->> 'userId' = participant.user_id
                     and (report.data::json ->> 'seq')::bigint >= $2
                     and participant.user_id <> $3::text
                     and exists (select from events where topic = 'ride/' || $1 and seq = $2)
                   order by report.seq
                   limit 1) as delivered on true
left join lateral (select report.created_at
                   from events report
                   where report.topic = 'ride/' || $1
                     and report.seq > $2
                     and report.type = 'message:read'
                     and report.data::json ->> 'userId' = participant.user_id
                     and (report.data::json ->> 'seq')::bigint >= $2
                     and participant.user_id <> $3
                     and exists (select from events where topic = 'ride/' || $1 and seq = $2)
                   order by report.seq
                   limit 1) as read on true
order by participant.user_id
