-- The lock of whoever creates the topic of a user (`topics/create.sql`): until the end of the transaction nobody else creates it.
select pg_advisory_xact_lock(7243391, 1024 + (hashtext('user/' || $1::text) & 1023))
