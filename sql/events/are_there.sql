-- Whether the log has all that a batch put there: at its place, of its moment, and with its words.
select count(*) = cardinality($1::text[]) as are_there
from unnest($1::text[], $2::bigint[], $3::text[]) as own (topic, seq, data)
join events on events.topic = own.topic and events.seq = own.seq
where events.data = own.data
  and events.created_at = $4::timestamptz
