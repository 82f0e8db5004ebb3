-- The topics of which the log has all that a batch put there: at its place, of its moment, and with its words.
select own.topic
from unnest($1::text[], $2::bigint[], $3::text[]) as own (topic, seq, data)
left join events on events.topic = own.topic
                and events.seq = own.seq
                and events.data = own.data
                and events.created_at = $4::timestamptz
group by own.topic
having count(*) = count(events.seq)
