-- The same as `create.sql`, but waits for whoever creates one of the topics, and so learns how that has ended. In the order of the
-- locks' numbers, and rides before users, so that two who wait cannot deadlock. (A topic cannot have been created and erased during
-- the wait: an erasure waits for the same lock, behind this.)
with missing as materialized (select name, (name like 'user/%')::int * 1024 + (hashtext(name) & 1023) as lock
                              from unnest($1::text[]) as new (name)
                              where not exists (select from topics where topics.name = new.name)
                              order by lock),
     alone as materialized (select name, pg_advisory_xact_lock(7243391, lock) from missing),
     erased as materialized (select last_seq from topics where name = 'users')
insert into topics (name, last_seq, begins_after)
select name, start.seq, start.seq
from alone
cross join lateral (select case when name like 'user/%' then coalesce((select last_seq from erased), 0) else 0 end as seq) as start
order by name collate "C"
on conflict (name) do nothing
