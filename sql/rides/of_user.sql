-- The rides that a user is on, newest first, from the one after `$3` where one is given; each as it is now, with
-- its newest message and how many are unread, of those that are the user's to see.
select snapshot.*, last.*, unread.count as unread
from (select joined.ride_id, joined.user_id, joined.from_seq, joined.joined_at
      from participants joined
      join rides on rides.ride_id = joined.ride_id
      where joined.user_id = $1::text
        and joined.until_seq is null
        and ($2::text is null or rides.status = $2)
        and ($3::text is null
          or (joined.joined_at, joined.ride_id) < (select edge.joined_at, edge.ride_id
                                                   from participants edge
                                                   where edge.ride_id = $3
                                                     and edge.user_id = $1
                                                     and edge.until_seq is null))
      order by joined.joined_at desc, joined.ride_id desc
      limit $4::bigint) as mine
join ride_snapshots snapshot on snapshot.ride_id = mine.ride_id
left join receipts mark on mark.ride_id = mine.ride_id and mark.user_id = mine.user_id
left join lateral (select id, seq, sender_id, sender_role, content, metadata, client_message_id, content_hash,
                          created_at, edited_at, deleted_at, labels, reactions
                   from messages
                   where messages.ride_id = mine.ride_id
                     and messages.seq >= mine.from_seq
                   order by messages.seq desc
                   limit 1) as last on true
cross join lateral (select count(*) as count
                    from participants seen
                    join messages on messages.ride_id = seen.ride_id
                                 and messages.seq > greatest(seen.from_seq, mark.read_seq)
                                 and messages.seq <= coalesce(seen.until_seq, 9223372036854775807)
                    where seen.ride_id = mine.ride_id
                      and seen.user_id = mine.user_id
                      and messages.sender_id <> mine.user_id
                      and messages.deleted_at is null) as unread
order by mine.joined_at desc, mine.ride_id desc
