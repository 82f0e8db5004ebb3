-- Records attempts whose queues are still under their lease, and returns which queues have more. `$6` is the delivery's new
-- state. If it is pending, the queue is due again in `$10` seconds; otherwise the lease continues for `$4` seconds while the
-- queue has more.
with reported as (select *
                  from unnest($1::text[], $2::text[], $3::bigint[], $5::bigint[], $6::text[], $7::bigint[], $8::bigint[], $9::text[],
                              $10::float8[]) as reported (webhook_id, topic, lease, position, state, status, duration_ms, error, delay)),
     advanced as (update webhook_queues as queue
                  set lease = case when reported.state = 'pending' or queue.last_position <= reported.position then null
                                   else queue.lease end,
                      due_at = case when reported.state = 'pending' then statement_timestamp() + make_interval(secs => reported.delay)
                                    when queue.last_position <= reported.position then 'infinity'
                                    else statement_timestamp() + make_interval(secs => $4::float8) end
                  from reported
                  where queue.webhook_id = reported.webhook_id
                    and queue.topic = reported.topic
                    and queue.lease = reported.lease
                  returning reported.webhook_id, reported.topic, queue.lease is not null as has_more, reported.position, reported.state,
                            reported.status, reported.duration_ms, reported.error),
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
