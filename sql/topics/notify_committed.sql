-- Hints for the other replicas where logs end since the transaction that ended just before: nothing where it was rolled
-- back, that is where an event of its is not there. Not within it: a transaction that notifies holds a lock of the whole
-- database while its commit waits for the disk. This one waits for none.
select set_config('synchronous_commit', 'off', true), pg_notify(notify_channel(), payload)
from unnest($1::text[]) as hint (payload)
where exists (select from events where topic = $2::text and seq = $3::bigint and created_at = $4::timestamptz)
