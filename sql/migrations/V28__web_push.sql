-- Web Push: subscriptions of browsers, and pushes that are due.

-- A browser's subscription. `host` is the push service. Whoever knows the endpoint can send to it, so it is never logged. A
-- subscription that moves to another user gets another id, which leaves the pushes of the user before without a subscription.
create table push_subscriptions (
    id            uuid primary key,
    endpoint      text collate "C" not null,
    user_id       text collate "C" not null,
    host          text collate "C" not null,
    p256dh        bytea            not null,
    auth          bytea            not null,
    registered_at timestamptz      not null,
    expires_at    timestamptz      not null
);
create unique index push_subscriptions_by_endpoint on push_subscriptions (endpoint);
create index push_subscriptions_of_user on push_subscriptions (user_id, registered_at);
create index push_subscriptions_by_expiry on push_subscriptions (expires_at);

-- A push that is to be sent: one for each subscription and ride. `seq` is that of the message which was not delivered. A replica takes
-- a push under a lease. `due_at` is when it may be taken: the next attempt, or the end of the lease. The push of a subscription that is
-- gone is deleted when it is due.
create table pushes (
    subscription_id uuid             not null,
    ride_id         text collate "C" not null,
    host            text collate "C" not null,
    seq             bigint           not null,
    created_at      timestamptz      not null,
    attempts        bigint           not null,
    due_at          timestamptz      not null,
    lease           bigint,
    primary key (subscription_id, ride_id)
);
create index pushes_due on pushes (host, due_at);

-- The VAPID key is made from it, the same on all replicas.
insert into secrets (name, value)
values ('vapid', decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'));
