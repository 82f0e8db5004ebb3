-- Disables an endpoint.
update webhooks
set state = 'disabled'
where id = $1::text
  and state = 'active'
returning id
