-- The tables of the Express server: rides and messages.
drop schema if exists express cascade;
create schema express;

create table express.rides (
    id        text primary key,
    rider_id  text not null,
    driver_id text not null,
    last_seq  bigint not null default 0
) with (fillfactor = 50);

create table express.messages (
    id                uuid primary key default gen_random_uuid(),
    ride_id           text not null references express.rides,
    seq               bigint not null,
    sender_id         text not null,
    sender_role       text not null,
    content           text not null,
    metadata          jsonb,
    client_message_id text,
    created_at        timestamptz not null default now(),
    edited_at         timestamptz,
    deleted_at        timestamptz,
    unique (ride_id, seq),
    unique (ride_id, sender_id, client_message_id)
);
