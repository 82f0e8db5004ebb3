-- Deletes queues of deleted endpoints, at most `$1` for each.
with old as (select webhooks.id, queue.topic
             from webhooks
             cross join lateral (select topic
                                 from webhook_queues
                                 where webhook_id = webhooks.id
                                 order by topic
                                 limit $1::bigint) as queue
             where webhooks.id > ''
               and webhooks.state = 'deleted')
delete from webhook_queues as queue
using old
where queue.webhook_id = old.id
  and queue.topic = old.topic
