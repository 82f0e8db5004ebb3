-- Releases a push that is still under the lease `$3`. It is due again in `$4` seconds. `$5` is the number of attempts to add.
update pushes
set lease = null,
    attempts = attempts + $5::bigint,
    due_at = statement_timestamp() + make_interval(secs => $4::float8)
where subscription_id = $1::uuid
  and ride_id = $2::text
  and lease = $3::bigint
