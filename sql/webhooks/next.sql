-- Returns the oldest pending delivery of each queue that is still under its lease, with the endpoint's URL and secrets and the
-- current event. `age` and `failing` are in seconds. `data` is null if the event has expired or was erased.
select leased.webhook_id, leased.topic, webhook.url, webhook.secret,
       case when webhook.previous_until > statement_timestamp() then webhook.previous_secret end as previous_secret,
       extract(epoch from statement_timestamp() - webhook.failing_since)::float8 as failing,
       head.position, head.seq, head.type, head.at, head.attempts,
       extract(epoch from statement_timestamp() - greatest(head.first_attempt_at, webhook.resumed_at))::float8 as age,
       coalesce(entry.data, event.data,
                case when flag.id is not null
                         then json_build_object('rideId', substr(leased.topic, length('ride/') + 1), 'messageId', flag.message_id,
                                                'seq', head.seq, 'labels', flag.labels::json,
                                                'at', to_char(flag.created_at at time zone 'UTC',
                                                              'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))::text end) as data
from unnest($1::text[], $2::text[], $3::bigint[]) as leased (webhook_id, topic, lease)
join webhook_queues as queue on queue.webhook_id = leased.webhook_id
                            and queue.topic = leased.topic
                            and queue.lease = leased.lease
join webhooks as webhook on webhook.id = leased.webhook_id
                        and webhook.state = 'active'
cross join lateral (select position, seq, type, at, attempts, first_attempt_at
                    from webhook_deliveries
                    where webhook_deliveries.webhook_id = leased.webhook_id
                      and webhook_deliveries.topic = leased.topic
                      and webhook_deliveries.state = 'pending'
                    order by position
                    limit 1) as head
left join feed as entry on entry.position = head.position
                       and entry.type is not null
left join flags as flag on flag.id = entry.flag
left join lateral (select data
                   from events
                   where events.topic = leased.topic
                     and events.seq = head.seq
                     and events.type = head.type
                   limit 1) as event on true
