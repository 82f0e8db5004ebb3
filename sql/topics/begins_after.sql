-- Returns the seq that a topic's log begins after.
select begins_after
from topics
where name = $1::text
