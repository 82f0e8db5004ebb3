-- Claims queues that are due, for each endpoint of `$1` at most as many as `$2`, under the lease `$3` for `$4` seconds.
with due as (select queue.webhook_id, queue.topic
             from unnest($1::text[], $2::bigint[]) as free (webhook_id, slots)
             cross join lateral (select webhook_id, topic
                                 from webhook_queues
                                 where webhook_queues.webhook_id = free.webhook_id
                                   and due_at <= statement_timestamp()
                                 order by due_at
                                 limit free.slots
                                 for update skip locked) as queue)
update webhook_queues as queue
set lease = $3::bigint,
    due_at = statement_timestamp() + make_interval(secs => $4::float8)
from due
where queue.webhook_id = due.webhook_id
  and queue.topic = due.topic
returning queue.webhook_id, queue.topic
