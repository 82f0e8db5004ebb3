-- Locks all endpoints, so no other transaction creates deliveries meanwhile.
select id
from webhooks
where id > ''
order by id
for no key update
