-- Erases a user's free text (reasons for cancelling or reopening a ride) and reactions from at most `$2` ride events. Their topics
-- are locked first, in the same order as in every other statement that writes to them.
with authored as materialized (select topic, seq
                               from events
                               where type in ('ride:cancel', 'ride:reopened', 'message:reaction')
                                 and coalesce(data::json ->> 'by', data::json ->> 'userId') = $1::text
                                 and coalesce(data::json ->> 'reason', data::json ->> 'emoji') is not null
                               limit $2::bigint),
     locked as materialized (select topics.name
                             from (select distinct topic from authored) as wanted
                             join topics on topics.name = wanted.topic
                             order by topics.name
                             for update of topics)
update events
set data = (select json_object_agg(field.key, case field.key
                                                  when 'emoji' then 'null'::json
                                                  when 'removed' then 'true'::json
                                                  else field.value end)
            from json_each(events.data::json) as field
            where field.key <> 'reason')::text
from authored
join locked on locked.name = authored.topic
where events.topic = authored.topic
  and events.seq = authored.seq
