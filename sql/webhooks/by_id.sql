-- An endpoint with its secrets: the previous one as long as it signs.
select id, url, types, description, state, created_at, secret,
       case when previous_until > statement_timestamp() then previous_secret end as previous_secret
from webhooks
where id = $1::text
  and state <> 'deleted'
