-- Returns the active endpoints, each with whether the feed has events without deliveries to it.
select webhooks.id, webhooks.position < topics.last_seq as is_behind
from webhooks
cross join topics
where webhooks.id > ''
  and webhooks.state = 'active'
  and topics.name = 'feed'
