-- Claims pushes that are due, under the lease `$5` for `$6` seconds: at most `$4` in total. For each push service, at most `$3` are
-- claimed, minus those that this replica has claimed already (`$1`, `$2`). Push services with the fewest claimed pushes come
-- first.
with recursive service as (
         (select host from pushes where host > '' order by host limit 1)
         union all
         select next.host
         from service
         cross join lateral (select host from pushes where pushes.host > service.host order by host limit 1) as next),
     free as materialized (select service.host, $3::bigint - coalesce(claimed.count, 0) as slots
                           from service
                           left join unnest($1::text[], $2::bigint[]) as claimed (host, count) on claimed.host = service.host
                           order by coalesce(claimed.count, 0), random()),
     due as (select push.subscription_id, push.ride_id
             from free
             cross join lateral (select subscription_id, ride_id
                                 from pushes
                                 where pushes.host = free.host
                                   and due_at <= statement_timestamp()
                                 order by due_at
                                 limit greatest(free.slots, 0)
                                 for update skip locked) as push
             limit $4::bigint)
update pushes as push
set lease = $5::bigint,
    due_at = statement_timestamp() + make_interval(secs => $6::float8)
from due
where push.subscription_id = due.subscription_id
  and push.ride_id = due.ride_id
returning push.subscription_id, push.ride_id, push.host
