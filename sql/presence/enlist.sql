-- A replica begins, under a name of its own.
insert into replicas (replica, expires_at)
values ($1::uuid, clock_timestamp() + make_interval(secs => $2::float8))
