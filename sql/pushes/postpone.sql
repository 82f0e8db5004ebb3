-- Gives a push back, which is due again in `$4` seconds, while it is under the lease `$3`. `$5` is how many attempts there were.
update pushes
set lease = null,
    attempts = attempts + $5::bigint,
    due_at = statement_timestamp() + make_interval(secs => $4::float8)
where subscription_id = $1::uuid
  and ride_id = $2::text
  and lease = $3::bigint
