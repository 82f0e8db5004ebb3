-- Records attempts, of those whose queues are still under their lease, and says which queues have more. `$6` is the delivery's state now;
-- where it is pending the queue is due again in `$10` seconds, else the lease goes on for `$4` seconds while there is more.
with asked as (select *
               from unnest($1::text[], $2::text[], $3::bigint[], $5::bigint[], $6::text[], $7::bigint[], $8::bigint[], $9::text[],
                           $10::float8[]) as asked (webhook_id, topic, lease, position, state, status, duration_ms, error, delay)),
     advanced as (update webhook_queues as queue
                  set lease = case when asked.state = 'pending' or queue.last_position <= asked.position then null else queue.lease end,
                      due_at = case when asked.state = 'pending' then statement_timestamp() + make_interval(secs => asked.delay)
                                    when queue.last_position <= asked.position then 'infinity'
                                    else statement_timestamp() + make_interval(secs => $4::float8) end
                  from asked
                  where queue.webhook_id = asked.webhook_id
                    and queue.topic = asked.topic
                    and queue.lease = asked.lease
                  returning asked.webhook_id, asked.topic, queue.lease is not null as has_more, asked.position, asked.state,
                            asked.status, asked.duration_ms, asked.error),
     recorded as (update webhook_deliveries as delivery
                  set state = advanced.state,
                      attempts = delivery.attempts + 1,
                      first_attempt_at = coalesce(delivery.first_attempt_at, statement_timestamp()),
                      status = advanced.status,
                      duration_ms = advanced.duration_ms,
                      error = advanced.error,
                      finished_at = case when advanced.state <> 'pending' then statement_timestamp() end
                  from advanced
                  where delivery.webhook_id = advanced.webhook_id
                    and delivery.position = advanced.position)
select webhook_id, topic, has_more
from advanced
