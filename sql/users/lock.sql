-- Acquires the lock for the creation of a user's topic (`topics/create.sql`). Until the end of the transaction, no other one
-- creates the topic.
select pg_advisory_xact_lock(7243391, 1024 + (hashtext('user/' || $1::text) & 1023))
