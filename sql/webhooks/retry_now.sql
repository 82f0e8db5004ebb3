-- Makes at most `$2` queues of an endpoint due that wait for their next attempt.
with waiting as (select webhook_id, topic
                 from webhook_queues
                 where webhook_id = $1::text
                   and due_at > statement_timestamp()
                   and due_at < 'infinity'
                   and lease is null
                 order by due_at
                 limit $2::bigint
                 for update skip locked)
update webhook_queues as queue
set due_at = statement_timestamp()
from waiting
where queue.webhook_id = waiting.webhook_id
  and queue.topic = waiting.topic
