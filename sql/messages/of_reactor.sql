-- Messages that a user has reacted to, at most `$2`.
select id, ride_id, seq
from messages
where reactions <> '[]'
  and reaction_users(reactions) @> array[$1::text]
limit $2::bigint
