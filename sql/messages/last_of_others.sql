-- The last message of somebody else at or before a seq: where a watermark may stand.
select wanted.ride_id, wanted.user_id, wanted.up_to, message.seq, message.id
from unnest($1::text[], $2::text[], $3::bigint[]) as wanted (ride_id, user_id, up_to)
cross join lateral (select seq, id
                    from messages
                    where messages.ride_id = wanted.ride_id
                      and messages.seq <= wanted.up_to
                      and messages.sender_id <> wanted.user_id
                    order by seq desc
                    limit 1) as message
