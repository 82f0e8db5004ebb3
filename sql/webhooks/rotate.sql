-- Replaces the secret of an endpoint. The previous one also signs for another `$3` seconds.
update webhooks
set previous_secret = secret,
    previous_until = statement_timestamp() + make_interval(secs => $3::float8),
    secret = $2::bytea
where id = $1::text
  and state <> 'deleted'
returning id
