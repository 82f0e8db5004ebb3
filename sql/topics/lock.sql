-- Locks topics, in one order everywhere, and returns their heads and the last batch of each. A row that had to be waited for is
-- read again after the wait. Everything else that decisions need is read by later statements, whose snapshots are newer than
-- these locks.
--
-- Each row also has the database's time; the last row's time is after all locks were acquired. So times grow with seq, whichever
-- replica writes. If there is nothing to lock, one row has only the time.
select locked.name, locked.last_seq, locked.last_batch, clock_timestamp() as now
from (values (true)) as one_row (present)
left join (select name, last_seq, last_batch
           from topics
           where name = any ($1::text[])
           order by name
           for update) as locked on true
