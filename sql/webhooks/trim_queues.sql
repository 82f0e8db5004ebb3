-- Deletes at most `$1` queues without pending deliveries.
with idle as (select webhook_id, topic
              from webhook_queues
              where due_at = 'infinity'
              limit $1::bigint
              for update skip locked)
delete from webhook_queues as queue
using idle
where queue.webhook_id = idle.webhook_id
  and queue.topic = idle.topic
