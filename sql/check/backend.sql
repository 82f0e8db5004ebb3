-- The process of Postgres behind a connection: behind a pooler, two connections may have the same.
select pg_backend_pid()::bigint as process
