-- Returns all endpoints, oldest first.
select id, url, types, description, state, created_at
from webhooks
where id > ''
  and state <> 'deleted'
order by created_at, id
