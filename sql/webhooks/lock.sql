-- Locks active endpoints, except those for which another replica is creating deliveries.
select id
from webhooks
where id = any ($1::text[])
  and state = 'active'
order by id
for no key update skip locked
