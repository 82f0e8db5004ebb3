-- Releases queues. They are due again in `$4` seconds.
update webhook_queues as queue
set lease = null,
    due_at = statement_timestamp() + make_interval(secs => $4::float8)
from unnest($1::text[], $2::text[], $3::bigint[]) as released (webhook_id, topic, lease)
where queue.webhook_id = released.webhook_id
  and queue.topic = released.topic
  and queue.lease = released.lease
