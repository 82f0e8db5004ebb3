-- Deletes a subscription that its push service has reported as gone.
delete from push_subscriptions
where id = $1::uuid
  and endpoint = $2::text
