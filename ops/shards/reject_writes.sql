-- Makes a shard reject all writes: servers respond to them with 503 and Retry-After. Reads and streams go on.
--
--     psql "$OLD" -v schema=public_shard_1 -f ops/shards/reject_writes.sql
--
-- The triggers wait for the transactions in progress. If another transaction makes this one fail, nothing is changed: run it again.
\set ON_ERROR_STOP on
begin;
create function :"schema".reject_write() returns trigger
language plpgsql
as $$
begin
    raise exception 'the shard moves to another server' using errcode = 'read_only_sql_transaction';
end
$$;
-- Presence and the other unlogged tables are not replicated. Servers write them again elsewhere.
select format('create trigger reject_write before insert or update or delete on %1$I.%2$I for each statement '
              'execute function %1$I.reject_write()', pg_namespace.nspname, pg_class.relname)
from pg_class
join pg_namespace on pg_namespace.oid = pg_class.relnamespace
where pg_namespace.nspname = :'schema'
  and pg_class.relkind = 'r'
  and pg_class.relpersistence = 'p'
order by pg_class.relname
\gexec
commit;
