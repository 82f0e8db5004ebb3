-- Returns the age of the oldest event that an active endpoint has not received, in seconds: one with a pending delivery, or one
-- without a delivery yet.
select extract(epoch from statement_timestamp() - min(least(pending.at, entry.created_at)))::float8 as age
from webhooks
left join lateral (select at
                   from webhook_deliveries
                   where webhook_deliveries.webhook_id = webhooks.id
                     and webhook_deliveries.state = 'pending'
                   order by position
                   limit 1) as pending on true
left join lateral feed_entries(webhooks.position, 1) as entry on true
where webhooks.id > ''
  and webhooks.state = 'active'
