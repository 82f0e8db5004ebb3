-- Gives queues back, which are due in `$4` seconds again.
update webhook_queues as queue
set lease = null,
    due_at = statement_timestamp() + make_interval(secs => $4::float8)
from unnest($1::text[], $2::text[], $3::bigint[]) as asked (webhook_id, topic, lease)
where queue.webhook_id = asked.webhook_id
  and queue.topic = asked.topic
  and queue.lease = asked.lease
