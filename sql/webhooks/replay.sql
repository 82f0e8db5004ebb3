-- Schedules the events after `$2` for redelivery, if the feed still has all of them. Returns where the feed begins and ends.
with bounds as (select topics.last_seq as last, coalesce(first.position - 1, topics.last_seq) as first
                from topics
                left join lateral feed_entries(0, 1) as first on true
                where topics.name = 'feed'),
     moved as (update webhooks
               set replay_until = greatest(replay_until, position),
                   position = least(position, $2::bigint)
               from bounds
               where webhooks.id = $1::text
                 and webhooks.state <> 'deleted'
                 and $2 between bounds.first and bounds.last)
select bounds.first, bounds.last
from bounds
join webhooks on webhooks.id = $1
where webhooks.state <> 'deleted'
