-- Creates the lease of a replica, under a new random id. The replica listens to its own channel, whose name ends with `$3`.
insert into replicas (replica, expires_at, channel)
values ($1::uuid, clock_timestamp() + make_interval(secs => $2::float8), $3::text)
