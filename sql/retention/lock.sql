-- Of several replicas, one takes old things away at a time: for as long as its transaction.
select pg_try_advisory_xact_lock(hashtextextended('ridewire retention', 0)) as is_mine
