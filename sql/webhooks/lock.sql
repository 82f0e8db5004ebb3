-- Locks endpoints, unless another replica creates their deliveries.
select id
from webhooks
where id = any ($1::text[])
  and state = 'active'
order by id
for no key update skip locked
