-- Removes the rows of deleted endpoints that have no deliveries and queues left.
delete from webhooks
where id > ''
  and state = 'deleted'
  and not exists (select from webhook_deliveries where webhook_id = webhooks.id)
  and not exists (select from webhook_queues where webhook_id = webhooks.id)
