-- Hints for the other replicas where logs end since the transaction `$2`, which ended just before: nothing where it was
-- rolled back. Not within it: a transaction that notifies holds a lock of the whole database while its commit waits for
-- the disk. This one waits for none.
select set_config('synchronous_commit', 'off', true), pg_notify('ridewire', payload)
from unnest($1::text[]) as hint (payload)
where pg_xact_status($2::text::xid8) = 'committed'
