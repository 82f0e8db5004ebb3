-- Locks topics in one order everywhere, and says where their logs end, and by which batch: a row that had to be waited for is read again
-- after the wait. What else is judged is read by later statements, whose snapshots are younger than these locks.
--
-- Each row also says the database's time, that of the last row after all the locks were taken: so times grow with seq
-- whichever replica writes. Where there is nothing to lock, one row says only that.
select locked.name, locked.last_seq, locked.last_batch, clock_timestamp() as now
from (values (true)) as always (there)
left join (select name, last_seq, last_batch
           from topics
           where name = any ($1::text[])
           order by name
           for update) as locked on true
