-- Locks topics in one order everywhere, and says where their logs end: a row that had to be waited for is read again
-- after the wait. What else is judged is read by later statements, whose snapshots are younger than these locks.
select name, last_seq
from topics
where name = any ($1::text[])
order by name
for update
