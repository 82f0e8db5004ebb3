-- How old the oldest event is that an active endpoint has not received, in seconds: with a pending delivery, or without one yet.
select extract(epoch from statement_timestamp() - min(least(pending.at, place.created_at)))::float8 as age
from webhooks
left join lateral (select at
                   from webhook_deliveries
                   where webhook_deliveries.webhook_id = webhooks.id
                     and webhook_deliveries.state = 'pending'
                   order by position
                   limit 1) as pending on true
left join lateral (select created_at
                   from feed
                   where feed.position > webhooks.position
                   order by position
                   limit 1) as place on true
where webhooks.id > ''
  and webhooks.state = 'active'
