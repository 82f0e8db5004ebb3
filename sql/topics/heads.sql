-- Returns the heads of topics.
select name, last_seq
from topics
where name = any ($1::text[])
