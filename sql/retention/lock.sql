-- Tries to acquire the retention lock for the transaction. Of several replicas, one deletes expired data at a time.
select pg_try_advisory_xact_lock(hashtextextended('ridewire retention', 0)) as is_acquired
