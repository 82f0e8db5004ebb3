-- Makes a shard accept writes again, after reject_writes.sql: to give up a move.
--
--     psql "$OLD" -v schema=public_shard_1 -f ops/shards/accept_writes.sql
\set ON_ERROR_STOP on
drop function if exists :"schema".reject_write() cascade;
