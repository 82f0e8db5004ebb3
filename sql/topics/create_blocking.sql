-- Like `create.sql`, but waits for a transaction that creates one of the topics, and so finds out its outcome. Locks are acquired
-- in the order of their numbers, rides before users, so that two waiting transactions cannot deadlock. (A topic cannot be created
-- and erased during the wait: an erasure waits for the same lock, behind this transaction.)
with missing as materialized (select name, (name like 'user/%')::int * 1024 + (hashtext(name) & 1023) as lock
                              from unnest($1::text[]) as new (name)
                              where not exists (select from topics where topics.name = new.name)
                              order by lock),
     locked as materialized (select name, pg_advisory_xact_lock(7243391, lock) from missing),
     erased as materialized (select last_seq from topics where name = 'users')
insert into topics (name, last_seq, begins_after)
select name, start.seq, start.seq
from locked
cross join lateral (select case when name like 'user/%' then coalesce((select last_seq from erased), 0) else 0 end as seq) as start
order by name collate "C"
on conflict (name) do nothing
