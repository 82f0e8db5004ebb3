-- Records that an endpoint has started or stopped failing.
update webhooks
set failing_since = case when $2::boolean then statement_timestamp() end
where id = $1::text
  and (failing_since is not null) <> $2
