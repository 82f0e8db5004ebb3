-- Creates the lease of a replica, under a new random id.
insert into replicas (replica, expires_at)
values ($1::uuid, clock_timestamp() + make_interval(secs => $2::float8))
