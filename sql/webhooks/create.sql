-- Creates an endpoint. Its deliveries begin at the feed's end.
insert into webhooks (id, url, types, patterns, description, state, secret, position, created_at)
select $1::text, $2::text, $3::text[], $4::text[], $5::text, 'active', $6::bytea, last_seq, statement_timestamp()
from topics
where name = 'feed'
returning id, url, types, description, state, created_at
