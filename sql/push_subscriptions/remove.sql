-- Deletes a subscription that its push service no longer has.
delete from push_subscriptions
where id = $1::uuid
  and endpoint = $2::text
