-- Deletes deliveries of deleted endpoints, at most `$1` for each.
with old as (select webhooks.id, delivery.position
             from webhooks
             cross join lateral (select position
                                 from webhook_deliveries
                                 where webhook_id = webhooks.id
                                 order by position
                                 limit $1::bigint) as delivery
             where webhooks.id > ''
               and webhooks.state = 'deleted')
delete from webhook_deliveries as delivery
using old
where delivery.webhook_id = old.id
  and delivery.position = old.position
