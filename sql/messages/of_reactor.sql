-- Returns at most `$2` messages that a user has reacted to.
select id, ride_id, seq
from messages
where reactions <> '[]'
  and reaction_users(reactions) @> array[$1::text]
limit $2::bigint
