-- Returns the last row of the outbox; null if it is empty.
select max(id) as id
from outbox
