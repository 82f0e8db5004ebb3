-- The same over all rides that a user is on, those with any.
select mine.ride_id, unread.count
from participants mine
left join receipts mark on mark.ride_id = mine.ride_id and mark.user_id = mine.user_id
cross join lateral (select count(*) as count
                    from participants seen
                    join messages on messages.ride_id = seen.ride_id
                                 and messages.seq > greatest(seen.from_seq, mark.read_seq)
                                 and messages.seq <= coalesce(seen.until_seq, 9223372036854775807)
                    where seen.ride_id = mine.ride_id
                      and seen.user_id = mine.user_id
                      and messages.sender_id <> mine.user_id
                      and messages.deleted_at is null) as unread
where mine.user_id = $1::text
  and mine.until_seq is null
  and unread.count > 0
order by mine.ride_id
