-- What a push says now, while it is under the lease `$3`. `message_id` is null where there is nothing left to say: the subscription is
-- gone, the user's delivered watermark has reached the message or the user has left the ride, or the messages were deleted. `wait` is in
-- how many seconds the message has been undelivered for `$4` seconds, where it is a later one than the push was made for.
select push.attempts, extract(epoch from statement_timestamp() - push.created_at)::float8 as age,
       subscription.endpoint, subscription.user_id, subscription.p256dh, subscription.auth, message.id as message_id,
       $4::float8 - extract(epoch from statement_timestamp() - message.created_at)::float8 as wait, unread.count as unread_count
from pushes as push
left join push_subscriptions as subscription on subscription.id = push.subscription_id
                                            and subscription.expires_at > statement_timestamp()
-- Written so that no index of the participants who have not left is taken for one of rides.
left join participants as person on person.ride_id = push.ride_id
                                and person.user_id = subscription.user_id
                                and coalesce(person.until_seq, 0) = 0
left join receipts as receipt on receipt.ride_id = person.ride_id
                             and receipt.user_id = person.user_id
left join lateral (select id, created_at
                   from messages
                   where messages.ride_id = person.ride_id
                     and messages.seq > greatest(coalesce(receipt.delivered_seq, 0), person.from_seq)
                     and messages.sender_id <> person.user_id
                     and messages.deleted_at is null
                   order by seq
                   limit 1) as message on coalesce(receipt.delivered_seq, 0) < push.seq
left join lateral (select count(*) as count
                   from participants mine
                   join messages on messages.ride_id = mine.ride_id
                                and messages.seq > greatest(mine.from_seq, coalesce(receipt.read_seq, 0))
                                and messages.seq <= coalesce(mine.until_seq, 9223372036854775807)
                   where mine.ride_id = person.ride_id
                     and mine.user_id = person.user_id
                     and messages.sender_id <> person.user_id
                     and messages.deleted_at is null) as unread on true
where push.subscription_id = $1::uuid
  and push.ride_id = $2::text
  and push.lease = $3::bigint
