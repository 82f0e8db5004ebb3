-- Renews the lease of a replica. No row: the lease has expired, and other replicas may have removed its registrations.
update replicas
set expires_at = clock_timestamp() + make_interval(secs => $2::float8)
where replica = $1::uuid
  and expires_at > clock_timestamp()
