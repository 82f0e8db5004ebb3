-- Locks topics, except those that another transaction has locked, and returns their heads and the last batch of each. A row that was
-- changed since the statement began is read again. The statement never waits, so one locked topic delays no other. Otherwise it is
-- like `lock.sql`.
select locked.name, locked.last_seq, locked.last_batch, clock_timestamp() as now
from (values (true)) as one_row (present)
left join (select name, last_seq, last_batch
           from topics
           where name = any ($1::text[])
           order by name
           for update skip locked) as locked on true
