-- Locks topics in one order everywhere. What is judged is read by later statements, whose snapshots are younger
-- than these locks.
select name
from topics
where name = any ($1::text[])
order by name
for update
