-- Revocations that a replica may not have heard of. Versions are of the clock, and commits may come in another order: so
-- from some seconds before the last that it has heard.
select user_id, revoked_at, version
from revocations
where version > $1::bigint - 10000000
