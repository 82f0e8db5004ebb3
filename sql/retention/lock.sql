-- Tries to acquire the retention lock for the transaction. Of several replicas, one deletes expired data at a time. Each schema of a
-- database has a lock of its own.
select pg_try_advisory_xact_lock(hashtextextended('ridewire retention ' || current_schema(), 0)) as is_acquired
