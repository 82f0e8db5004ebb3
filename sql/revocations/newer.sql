-- Returns revocations that a replica may have missed. Versions come from the clock, and commits may be in another order. So the
-- statement starts some seconds before the last version that the replica has received.
select user_id, revoked_at, version
from revocations
where version > $1::bigint - 10000000
