-- Webhooks: endpoints of the platform, and the deliveries of the feed's events to them. Events are not copied: their content is read
-- from the logs at each attempt.

-- `types` as given, `patterns` the same for LIKE. Deliveries have been created up to `position` of the feed; up to `replay_until`
-- they are created again. `state`: active, paused, disabled, or deleted, until retention has deleted its deliveries.
create table webhooks (
    id              text collate "C" primary key,
    url             text        not null,
    types           text[]      not null,
    patterns        text[]      not null,
    description     text,
    state           text        not null,
    secret          bytea       not null,
    previous_secret bytea,
    previous_until  timestamptz,
    position        bigint      not null,
    replay_until    bigint      not null default 0,
    failing_since   timestamptz,
    resumed_at      timestamptz,
    created_at      timestamptz not null
);

-- One row for each event that an endpoint wants. `state`: pending, delivered, or failed (a dead letter). `status`, `duration_ms` and
-- `error` are of the last attempt.
create table webhook_deliveries (
    webhook_id       text collate "C" not null,
    position         bigint           not null,
    topic            text collate "C" not null,
    seq              bigint           not null,
    type             text             not null,
    at               timestamptz      not null,
    state            text             not null,
    attempts         bigint           not null,
    first_attempt_at timestamptz,
    status           bigint,
    duration_ms      bigint,
    error            text,
    finished_at      timestamptz,
    primary key (webhook_id, position)
);
create index webhook_deliveries_pending on webhook_deliveries (webhook_id, topic, position) where state = 'pending';
create index webhook_deliveries_state on webhook_deliveries (webhook_id, state, position);
create index webhook_deliveries_finished on webhook_deliveries (state, finished_at);

-- The queue of an endpoint's deliveries of one topic: only its oldest pending delivery is attempted. A replica takes the queue under a
-- lease. `due_at` is when the queue may be taken: the next attempt, the end of the lease, or never (infinity), where nothing is pending.
-- Every change of a pending delivery's state locks its queue first.
create table webhook_queues (
    webhook_id    text collate "C" not null,
    topic         text collate "C" not null,
    last_position bigint           not null,
    due_at        timestamptz      not null,
    lease         bigint,
    primary key (webhook_id, topic)
);
create index webhook_queues_due on webhook_queues (webhook_id, due_at);
create index webhook_queues_idle on webhook_queues (due_at) where due_at = 'infinity';

-- Makes the ids of events, which are the same on all replicas.
insert into secrets (name, value)
values ('webhook_ids', decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'));
