-- Messages that are not delivered in time.

-- How far readers of the feed within the server have got.
create table feed_cursors (
    name     text primary key,
    position bigint not null
);
insert into feed_cursors (name, position) values ('undelivered', 0);

-- The delivered watermark at which a user's last `message:undelivered` on a ride was sent: none is sent again until it moves.
create table undelivered (
    ride_id       text collate "C" not null,
    user_id       text collate "C" not null,
    delivered_seq bigint           not null,
    primary key (ride_id, user_id)
) with (fillfactor = 80);
create index undelivered_of_user on undelivered (user_id);
