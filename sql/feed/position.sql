-- Returns the feed position of the event `$2` of a ride's topic, which was committed at `$3`, and when it was added. Positions are in
-- the order of their time. So a binary search finds the first batch of that time or later, and the event follows. It begins a second
-- earlier, because the time of an event may be from a replica's clock. At most 20,000 batches are searched.
with recursive bisection (low, high) as (select (select last_position from feed_ranges where last_position > 0 order by last_position limit 1),
                                                (select last_seq + 1 from topics where name = 'feed')
                                         union all
                                         select case when probe.created_at < $3::timestamptz - interval '1 s' then probe.last_position + 1
                                                     else bisection.low end,
                                                case when probe.created_at < $3 - interval '1 s' then bisection.high
                                                     else (bisection.low + bisection.high) / 2 end
                                         from bisection
                                         left join lateral (select last_position, created_at
                                                            from feed_ranges
                                                            where last_position >= (bisection.low + bisection.high) / 2
                                                              and last_position < bisection.high
                                                            order by last_position
                                                            limit 1) as probe on true
                                         where bisection.low < bisection.high)
select part.last_position + $2::bigint - part.last_seq as position, batch.created_at
from (select first_position, topics, first_seqs, last_seqs, created_at
      from feed_ranges
      where last_position >= (select max(low) from bisection)
      order by last_position
      limit 20000) as batch
cross join lateral (select part.topic, part.first_seq, part.last_seq,
                           batch.first_position - 1
                               + (sum(part.last_seq - part.first_seq + 1) over (order by part.ordinal))::bigint as last_position
                    from unnest(batch.topics, batch.first_seqs, batch.last_seqs) with ordinality
                             as part (topic, first_seq, last_seq, ordinal)) as part
where $1::text = any (batch.topics)
  and part.topic = $1
  and $2 between part.first_seq and part.last_seq
limit 1
