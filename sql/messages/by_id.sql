-- Returns messages by id.
select *
from message_rows
where id = any ($1::uuid[])
