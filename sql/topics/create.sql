-- Creates topics that do not exist. Sorted, so that two replicas that create the same ones cannot deadlock.
--
-- An insert of a row that another transaction has inserted and not committed would wait for the end of that transaction. So the
-- creator of a topic first acquires an advisory lock: one of 1024 for rides, and one of as many for users. (A batch may create
-- many topics, and the lock table has a limited size.) If the lock is not free, the topic is not created, and the statement that
-- locks the topics next does not find it.
--
-- A user's topic begins after all erased ones (the counter `users`). Both are read in the snapshot in which the topic is missing,
-- so after its own erasure.
with missing as materialized (select name
                              from unnest($1::text[]) as new (name)
                              where not exists (select from topics where topics.name = new.name)),
     erased as materialized (select last_seq from topics where name = 'users')
insert into topics (name, last_seq, begins_after)
select name, start.seq, start.seq
from missing
cross join lateral (select case when name like 'user/%' then coalesce((select last_seq from erased), 0) else 0 end as seq) as start
where pg_try_advisory_xact_lock(7243391, (name like 'user/%')::int * 1024 + (hashtext(name) & 1023))
order by name collate "C"
on conflict (name) do nothing
