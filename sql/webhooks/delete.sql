-- Deletes an endpoint. Retention deletes its deliveries, and then the row.
update webhooks
set state = 'deleted'
where id = $1::text
  and state <> 'deleted'
returning id
