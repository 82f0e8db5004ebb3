-- Where the event `$2` of a topic, committed at `$3`, is in the feed, and since when. Positions are in the order of their time, and an event
-- gets its position after it was committed: the first position of that time or later is found by halving (an erasure may have left holes),
-- and the event follows it. At most 200,000 positions are searched.
with recursive halved (low, high) as (select (select position from feed where position > 0 order by position limit 1),
                                             (select last_seq + 1 from topics where name = 'feed')
                                      union all
                                      select case when probe.created_at < $3::timestamptz then probe.position + 1 else halved.low end,
                                             case when probe.created_at < $3 then halved.high else (halved.low + halved.high) / 2 end
                                      from halved
                                      left join lateral (select position, created_at
                                                         from feed
                                                         where position >= (halved.low + halved.high) / 2
                                                           and position < halved.high
                                                         order by position
                                                         limit 1) as probe on true
                                      where halved.low < halved.high)
select place.position, place.created_at
from (select position, topic, seq, type, created_at
      from feed
      where position >= (select max(low) from halved)
      order by position
      limit 200000) as place
where place.topic = $1::text
  and place.seq = $2::bigint
  and place.type is null
limit 1
