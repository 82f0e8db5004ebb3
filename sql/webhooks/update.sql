-- Changes the given properties of an endpoint; the description only with `$5`. An endpoint that becomes active starts without
-- failures.
update webhooks
set url = coalesce($2::text, url),
    types = coalesce($3::text[], types),
    patterns = coalesce($4::text[], patterns),
    description = case when $5::boolean then $6::text else description end,
    failing_since = case when $7::text = 'active' and state <> 'active' then null else failing_since end,
    resumed_at = case when $7 = 'active' and state <> 'active' then statement_timestamp() else resumed_at end,
    state = coalesce($7, state)
where id = $1::text
  and state <> 'deleted'
returning id, url, types, description, state, created_at
