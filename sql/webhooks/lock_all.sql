-- Locks all endpoints: nobody creates deliveries meanwhile.
select id
from webhooks
where id > ''
order by id
for no key update
