-- Stores handovers of the replica `$1`, one row for each element of the arrays.
insert into handovers (replica, ride_id, user_id, first_seq, last_seq, transport, at)
select $1::text, handover.*
from unnest($2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[], $7::timestamptz[]) as handover
