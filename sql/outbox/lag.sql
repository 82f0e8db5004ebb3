-- Returns the age of the oldest row of the outbox in seconds, if there is one.
select extract(epoch from statement_timestamp() - added_at)::float8 as lag
from outbox
where id > 0
order by id
limit 1
