-- Returns an endpoint with its secrets; the previous one only while it still signs.
select id, url, types, description, state, created_at, secret,
       case when previous_until > statement_timestamp() then previous_secret end as previous_secret
from webhooks
where id = $1::text
  and state <> 'deleted'
