-- Returns the deliveries of an endpoint in a state, before a position, newest first.
select delivery.position, delivery.topic, delivery.seq, delivery.type, delivery.at, delivery.attempts, delivery.status,
       delivery.duration_ms, delivery.error,
       case when delivery.state = 'pending' and delivery.attempts > 0 and queue.lease is null and queue.due_at < 'infinity'
            then queue.due_at end as next_attempt_at
from (select *
      from webhook_deliveries
      where webhook_id = $1::text
        and state = $4::text
        and position < $2::bigint
      order by position desc
      limit $3::bigint) as delivery
left join webhook_queues as queue on queue.webhook_id = delivery.webhook_id
                                 and queue.topic = delivery.topic
order by delivery.position desc
