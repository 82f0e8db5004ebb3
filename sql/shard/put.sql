-- Records which shard this schema is. It never changes.
insert into shard (number, count, deployment)
values ($1::bigint, $2::bigint, $3::uuid)
