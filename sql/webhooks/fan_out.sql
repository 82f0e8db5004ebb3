-- Creates the deliveries of the next events, for each endpoint of `$1` from at most `$2` positions of the feed, and advances the
-- endpoints' positions. A replayed event becomes pending again, and its queue is revoked from the replica that has claimed it. A
-- statement before this one has locked the endpoints.
with endpoint as (select id, position, patterns, replay_until from webhooks where id = any ($1::text[])),
     page as (select endpoint.id as webhook_id, endpoint.patterns, entry.position, entry.topic, entry.seq,
                     coalesce(entry.type, event.type) as type, coalesce(event.created_at, flag.created_at, entry.created_at) as at,
                     entry.position <= endpoint.replay_until as is_replay
              from endpoint
              cross join lateral feed_entries(endpoint.position, $2::bigint) as entry
              left join lateral (select type, created_at
                                 from events
                                 where events.topic = entry.topic
                                   and events.seq = entry.seq
                                   and entry.type is null
                                 -- See feed/page.sql.
                                 limit 1) as event on true
              left join lateral (select created_at from flags where flags.id = entry.flag limit 1) as flag on true),
     wanted as (select * from page where type like any (patterns)),
     queued as (insert into webhook_queues as queue (webhook_id, topic, last_position, due_at, lease)
                select webhook_id, topic, max(position), case when bool_or(is_replay) then 'epoch' else statement_timestamp() end, null::bigint
                from wanted
                group by webhook_id, topic
                order by webhook_id, topic
                on conflict (webhook_id, topic) do update
                set last_position = greatest(queue.last_position, excluded.last_position),
                    due_at = case when queue.due_at = 'infinity' or excluded.due_at = 'epoch' then excluded.due_at else queue.due_at end,
                    lease = case when excluded.due_at = 'epoch' then null else queue.lease end
                returning 1),
     -- The queues are locked first.
     created as (insert into webhook_deliveries as delivery (webhook_id, position, topic, seq, type, at, state, attempts)
                 select webhook_id, position, topic, seq, type, at, 'pending', 0
                 from wanted
                 where (select count(*) from queued) > 0
                 order by webhook_id, position
                 on conflict (webhook_id, position) do update
                 set state = 'pending',
                     attempts = 0,
                     first_attempt_at = null,
                     status = null,
                     duration_ms = null,
                     error = null,
                     finished_at = null),
     read as (select webhook_id, min(position) as first, max(position) as last from page group by webhook_id),
     -- Positions without an event in the feed have expired.
     moved as (select endpoint.id, greatest(endpoint.position, coalesce(read.last, head.last_seq)) as position,
                      coalesce(read.first - 1, head.last_seq) - endpoint.position as missed
               from endpoint
               cross join (select last_seq from topics where name = 'feed') as head
               left join read on read.webhook_id = endpoint.id)
update webhooks
set position = moved.position
from moved
where webhooks.id = moved.id
returning webhooks.id, moved.missed
