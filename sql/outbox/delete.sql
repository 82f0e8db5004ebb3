-- Deletes rows that their shard has committed.
delete from outbox
where id = any ($1::bigint[])
