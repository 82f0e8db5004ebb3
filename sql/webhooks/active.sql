-- The active endpoints, and whether the feed has events that they have no deliveries of yet.
select webhooks.id, webhooks.position < topics.last_seq as is_behind
from webhooks
cross join topics
where webhooks.id > ''
  and webhooks.state = 'active'
  and topics.name = 'feed'
