-- Topics that may be new. Sorted, so that two replicas that create the same ones cannot deadlock.
insert into topics (name)
select name from unnest($1::text[]) as new (name) order by name collate "C"
on conflict (name) do nothing
