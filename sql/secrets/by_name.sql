-- Returns a secret that all servers share.
select value
from secrets
where name = $1::text
