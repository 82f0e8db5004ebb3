update topics
set last_seq = raised.last_seq
from unnest($1::text[], $2::bigint[]) as raised (name, last_seq)
where topics.name = raised.name
