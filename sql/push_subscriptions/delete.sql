-- Deletes a subscription of a user.
delete from push_subscriptions
where endpoint = $1::text
  and user_id = $2::text
