-- Values for the other replicas, which are told and not logged: their commit waits for no disk.
select set_config('synchronous_commit', 'off', true), pg_notify(notify_channel(), payload)
from unnest($1::text[]) as hint (payload)
