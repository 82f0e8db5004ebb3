-- Who this transaction is (to ask for its fate when its COMMIT's answer is lost), and its time: the database's
-- clock after the locks were taken, so that times grow with seq whichever replica writes.
select pg_current_xact_id()::text as xid, clock_timestamp() as now
