-- What the erasure of a user needs, and a keyed hash of what messages were first sent with.

-- Without the key a hash does not tell a guess of the content from another. The key is made here, once.
insert into secrets (name, value)
values ('content_hashes', decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'));

-- The hashes that there are had no key. HMAC-SHA-256 (RFC 2104) of each takes its place; a deleted message has none.
do $$
declare
    inner_key bytea := (select value from secrets where name = 'content_hashes') || decode(repeat('00', 32), 'hex');
    outer_key bytea := inner_key;
begin
    for place in 0..63 loop
        inner_key := set_byte(inner_key, place, get_byte(inner_key, place) # 54);
        outer_key := set_byte(outer_key, place, get_byte(outer_key, place) # 92);
    end loop;
    update messages
    set content_hash = substring(sha256(outer_key || sha256(inner_key || content_hash)) from 1 for 16)
    where deleted_at is null;
end $$;

-- The topic of a user goes with the user. So that no seq of it is ever given again, topics of users that are created later begin
-- after the last seq of all that have gone: that is what the row `users` counts. It grows with each erasure, so replicas also see by
-- it that there was one.
insert into topics (name) values ('users') on conflict (name) do nothing;

-- What a topic's log begins after: no reader misses anything up to there.
alter table topics add column begins_after bigint not null default 0;

-- Events with words of a user, or a reaction.
create index events_of_author on events ((coalesce(data::json ->> 'by', data::json ->> 'userId')))
    where type in ('ride:cancel', 'ride:reopened', 'message:reaction');

-- Who has reacted to a message.
create function reaction_users(reactions text) returns text[]
language sql immutable strict parallel safe as
$$
    select coalesce(array_agg(distinct user_id), '{}')
    from json_array_elements(reactions::json) as kind
    cross join lateral json_array_elements_text(kind -> 1) as user_id
$$;
create index messages_by_reaction on messages using gin (reaction_users(reactions)) where reactions <> '[]';

-- What the feed and the webhooks have of users' topics, and `message:undelivered` by its user.
create index feed_of_users on feed (topic) where topic >= 'user/' and topic < 'user0';
create index feed_of_undelivered on feed ((data::json ->> 'userId')) where type = 'message:undelivered';
create index webhook_deliveries_of_users on webhook_deliveries (topic) where topic >= 'user/' and topic < 'user0';
create index webhook_queues_of_users on webhook_queues (topic) where topic >= 'user/' and topic < 'user0';
