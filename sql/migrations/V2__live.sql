-- Everything live about a ride.

-- Who reacted how: `[["👍", ["rider_1"]], …]`, in the order of the first of each. In the message's own row: it is
-- never wanted without it, is bounded (20 kinds), and changes under the same lock.
alter table messages add column reactions text not null default '[]';

-- Secrets that all replicas share and nobody has to configure. That of stream tickets is made here, once: gen_random_uuid
-- draws 122 bits from the operating system.
create table secrets (
    name  text primary key,
    value bytea not null
);
insert into secrets (name, value)
values ('stream_tickets', decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'));
