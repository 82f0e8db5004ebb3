-- Topics that may be new. Sorted, so that two replicas that create the same ones cannot deadlock.
--
-- To insert what another transaction has inserted and not committed would be to wait for its end. So whoever creates a topic
-- has a lock of it first, one of 1024 for rides and as many for users (a batch may create many, and locks have to fit into memory);
-- who does not get it creates nothing: the topic is not there then, as it is for whoever locks it next.
--
-- A user's topic begins after all that were erased (`users`): of the same snapshot as that it is missing, so after its own erasure.
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
