-- The next events of many topics at once, each after its own cursor and up to its own limit.
select wanted.ordinal::int as request, event.seq, event.type, event.data, event.trace, event.created_at
from unnest($1::text[], $2::bigint[], $3::bigint[]) with ordinality as wanted (topic, after, page, ordinal)
cross join lateral (select seq, type, data, trace, created_at
                    from events
                    where events.topic = wanted.topic
                      and events.seq > wanted.after
                    order by seq
                    limit wanted.page) as event
order by wanted.ordinal, event.seq
