-- Sends values to the other replicas, which are not stored in a log. The commit is asynchronous.
select set_config('synchronous_commit', 'off', true), pg_notify(notify_channel(), payload)
from unnest($1::text[]) as hint (payload)
