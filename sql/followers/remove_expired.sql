-- Checks the next `$3` registrations after `$1` and `$2`, in the order of the key. Removes those of replicas that have no lease any
-- more; a lease never returns. Returns the last one, or no row at the end.
with page as materialized (select topic, replica
                           from followers
                           where (topic, replica) > ($1::text, $2::uuid)
                           order by topic, replica
                           limit $3::bigint),
     removed as (delete from followers
                 using page
                 where followers.topic = page.topic
                   and followers.replica = page.replica
                   and not exists (select from replicas where replicas.replica = page.replica))
select topic, replica
from page
order by topic desc, replica desc
limit 1
