-- Renames a shard that has moved, and closes the servers' connections, so that they do not read the old copy any more. Run it when the new
-- copy is complete, and before any server uses the new one.
--
--     psql "$OLD" -v schema=public_shard_1 -f ops/shards/retire.sql
\set ON_ERROR_STOP on
select format('alter schema %I rename to %I', :'schema', :'schema' || '_moved')
\gexec
-- Prepared statements would still find the tables. The servers open other connections at once, also those to other shards here.
select count(pg_terminate_backend(pid)) as closed
from pg_stat_activity
where datname = current_database()
  and backend_type = 'client backend'
  and pid <> pg_backend_pid();
