-- The same as `create.sql`, but waits for whoever creates one of the topics, and so learns how that has ended. In the order of the
-- locks' numbers, and rides before users, so that two who wait cannot deadlock.
with missing as materialized (select name, (name like 'user/%')::int * 1024 + (hashtext(name) & 1023) as lock
                              from unnest($1::text[]) as new (name)
                              where not exists (select from topics where topics.name = new.name)
                              order by lock),
     alone as materialized (select name, pg_advisory_xact_lock(7243391, lock) from missing)
insert into topics (name)
select name
from alone
order by name collate "C"
on conflict (name) do nothing
