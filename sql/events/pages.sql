-- Returns the next events of many topics, each after its own cursor and up to its own limit. For each topic up to `$4` bytes are
-- returned, but at least one event. Each event has the batch that wrote it. The first one after the cursor also has the batch of the
-- event before.
select wanted.ordinal::int as request, event.seq, event.type, event.data, event.trace, event.created_at, event.batch,
       case when event.seq = wanted.after + 1
                then (select before.batch
                      from events before
                      where before.topic = wanted.topic
                        and before.seq = wanted.after) end as batch_before
from unnest($1::text[], $2::bigint[], $3::bigint[]) with ordinality as wanted (topic, after, page, ordinal)
cross join lateral (select next.*,
                           sum(octet_length(next.data)) over (order by next.seq rows unbounded preceding) as bytes
                    from (select seq, type, data, trace, created_at, batch
                          from events
                          where events.topic = wanted.topic
                            and events.seq > wanted.after
                          order by seq
                          limit wanted.page) as next) as event
where event.bytes - octet_length(event.data) < $4::bigint
order by wanted.ordinal, event.seq
