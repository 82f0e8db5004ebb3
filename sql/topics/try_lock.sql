-- Locks topics, but none that somebody else has locked, and says where their logs end, and by which batch: a row that was changed
-- since the statement began is read again. It waits for nobody, so whoever is behind a lock delays no other. The rest as in
-- `lock.sql`.
select locked.name, locked.last_seq, locked.last_batch, clock_timestamp() as now
from (values (true)) as always (there)
left join (select name, last_seq, last_batch
           from topics
           where name = any ($1::text[])
           order by name
           for update skip locked) as locked on true
