-- Returns when the message `$2` of a ride was handed to participants' connections. A handover spans fewer than 1,000 seqs.
select user_id, at, transport, replica
from handovers
where ride_id = $1::text
  and last_seq >= $2::bigint
  and last_seq < $2 + 1000
  and first_seq <= $2
order by at
limit 1000
