-- A replica goes on. No row: its lease has run out, and others may have taken that for its end.
update replicas
set expires_at = clock_timestamp() + make_interval(secs => $2::float8)
where replica = $1::uuid
  and expires_at > clock_timestamp()
