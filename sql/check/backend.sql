-- Returns the Postgres process of a connection. Behind a pooler, two connections may have the same one.
select pg_backend_pid()::bigint as process
