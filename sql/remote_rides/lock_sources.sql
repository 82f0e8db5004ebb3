-- Acquires the locks of those shards in `$1` whose rows no other transaction applies at the moment, and returns these shards. A statement
-- after this one reads what was applied.
select key
from unnest($1::bigint[]) as wanted (key)
where pg_try_advisory_xact_lock(7243392, key::int)
