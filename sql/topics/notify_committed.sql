-- Sends the new heads to the other replicas after a commit. Does nothing if the transaction was rolled back, that is, if its
-- event does not exist. This runs in a transaction of its own: a transaction that notifies holds a database-wide lock while its
-- commit waits for the disk. The commit of this one is asynchronous.
select set_config('synchronous_commit', 'off', true), pg_notify(notify_channel(), payload)
from unnest($1::text[]) as hint (payload)
where exists (select from events where topic = $2::text and seq = $3::bigint and created_at = $4::timestamptz)
