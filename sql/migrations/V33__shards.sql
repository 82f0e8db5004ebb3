-- Shards: a deployment may consist of several schemas, in one database or in several. Each ride is in one of them, with everything that
-- names it. A user's topic and list of rides are in one of them, too, which may be another one.

-- Which shard this schema is. There is no row in a deployment with one shard.
create table shard (
    number     bigint primary key,
    count      bigint not null,
    deployment uuid   not null
);
create unique index shard_is_one on shard ((true));

-- The shard of the participant's topic and list of rides, where it is another one.
alter table participants add column user_shard bigint;

-- What users of other shards receive: an event for their topic, if there is one, and the entry of the ride in their list. A transaction
-- that changes a ride adds the rows. A row is deleted after the other shard has committed it. The rows of a ride are added under the lock of
-- the ride's topic, so their ids are in the order of their commits. Of a ride that was deleted, only the keys are here.
create table outbox (
    id        bigint generated always as identity primary key,
    shard     bigint           not null,
    user_id   text collate "C" not null,
    ride_id   text collate "C" not null,
    type      text,
    data      text,
    trace     text,
    from_seq  bigint,
    until_seq bigint,
    joined_at timestamptz,
    status    text,
    is_ended  boolean,
    is_over   boolean,
    is_read   boolean,
    added_at  timestamptz      not null
);
create index outbox_by_shard on outbox (shard, id);

-- The rides in other shards of this shard's users, as their shards have reported. `last_id` is the last row of the outbox that was applied:
-- a row that arrives twice is applied once. For this, the entry of a deleted ride stays for a day. It is not listed: it has an `until_seq`.
create table remote_rides (
    user_id    text collate "C" not null,
    ride_id    text collate "C" not null,
    last_id    bigint           not null,
    from_seq   bigint           not null,
    until_seq  bigint,
    joined_at  timestamptz      not null,
    status     text             not null,
    is_ended   boolean          not null,
    is_over    boolean          not null,
    is_read    boolean          not null,
    deleted_at timestamptz,
    primary key (user_id, ride_id)
);
create index remote_rides_deleted on remote_rides (deleted_at) where deleted_at is not null;
create index remote_rides_by_user on remote_rides (user_id, joined_at desc, ride_id desc) where until_seq is null;
create index remote_rides_open on remote_rides (user_id, is_ended, joined_at desc, ride_id desc) where until_seq is null and not is_over;
create index remote_rides_unread on remote_rides (user_id, ride_id) where until_seq is null and (is_over and is_read) is not true;
