-- Registers topics that have readers on a replica. Rows are written in one order everywhere.
insert into followers as follower (topic, replica, generation)
select topic, replica, generation
from unnest($1::text[], $2::uuid[], $3::bigint[]) as followed (topic, replica, generation)
order by topic collate "C", replica
on conflict (topic, replica) do update
    set generation = excluded.generation
    where follower.generation < excluded.generation
