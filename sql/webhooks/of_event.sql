-- Returns the deliveries of the event at a feed position, by endpoint.
select webhooks.id, delivery.state, delivery.attempts
from webhooks
cross join lateral (select state, attempts
                    from webhook_deliveries
                    where webhook_id = webhooks.id
                      and position = $1::bigint
                    limit 1) as delivery
where webhooks.id > ''
  and webhooks.state <> 'deleted'
order by webhooks.created_at, webhooks.id
