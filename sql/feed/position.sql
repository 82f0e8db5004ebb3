-- Returns the feed position of the event `$2` of a topic, which was committed at `$3`, and when it was added. Positions are in
-- the order of their time, and an event gets its position after its commit. So a binary search finds the first position of that
-- time or later (an erasure may have left holes), and the event follows it. At most 200,000 positions are searched.
with recursive bisection (low, high) as (select (select position from feed where position > 0 order by position limit 1),
                                                (select last_seq + 1 from topics where name = 'feed')
                                         union all
                                         select case when probe.created_at < $3::timestamptz then probe.position + 1 else bisection.low end,
                                                case when probe.created_at < $3 then bisection.high
                                                     else (bisection.low + bisection.high) / 2 end
                                         from bisection
                                         left join lateral (select position, created_at
                                                            from feed
                                                            where position >= (bisection.low + bisection.high) / 2
                                                              and position < bisection.high
                                                            order by position
                                                            limit 1) as probe on true
                                         where bisection.low < bisection.high)
select entry.position, entry.created_at
from (select position, topic, seq, type, created_at
      from feed
      where position >= (select max(low) from bisection)
      order by position
      limit 200000) as entry
where entry.topic = $1::text
  and entry.seq = $2::bigint
  and entry.type is null
limit 1
