-- Prints the statements that set the sequences of a shard's copy, which logical replication does not transfer.
--
--     psql "$OLD" -At -v schema=public_shard_1 -f ops/shards/sequences.sql | psql "$NEW"
\set ON_ERROR_STOP on
select format('select setval(%L, %s);', format('%I.%I', schemaname, sequencename), coalesce(last_value, start_value))
from pg_sequences
where schemaname = :'schema';
