-- Erases what events of rides say in a user's words (why they cancelled or reopened a ride) and which reactions were theirs: at most
-- `$2` events. Their topics are locked first, as by all who write on them, in one order.
with mine as materialized (select topic, seq
                           from events
                           where type in ('ride:cancel', 'ride:reopened', 'message:reaction')
                             and coalesce(data::json ->> 'by', data::json ->> 'userId') = $1::text
                             and coalesce(data::json ->> 'reason', data::json ->> 'emoji') is not null
                           limit $2::bigint),
     held as materialized (select topics.name
                           from (select distinct topic from mine) as named
                           join topics on topics.name = named.topic
                           order by topics.name
                           for update of topics)
update events
set data = (select json_object_agg(field.key, case field.key
                                                  when 'emoji' then 'null'::json
                                                  when 'removed' then 'true'::json
                                                  else field.value end)
            from json_each(events.data::json) as field
            where field.key <> 'reason')::text
from mine
join held on held.name = mine.topic
where events.topic = mine.topic
  and events.seq = mine.seq
