-- Returns the current state of a push under the lease `$3`. `message_id` is null if the push is obsolete: the subscription is
-- gone, the message was delivered or deleted, or the user has left the ride. `wait` is the number of seconds until the message has
-- been undelivered for `$4` seconds, if it is later than the one the push was created for.
select push.attempts, extract(epoch from statement_timestamp() - push.created_at)::float8 as age,
       subscription.endpoint, subscription.user_id, subscription.p256dh, subscription.auth, message.id as message_id,
       $4::float8 - extract(epoch from statement_timestamp() - message.created_at)::float8 as wait, unread.count as unread_count
from pushes as push
left join push_subscriptions as subscription on subscription.id = push.subscription_id
                                            and subscription.expires_at > statement_timestamp()
-- `coalesce` keeps the planner from using a partial index of current participants to look up a ride.
left join participants as participant on participant.ride_id = push.ride_id
                                     and participant.user_id = subscription.user_id
                                     and coalesce(participant.until_seq, 0) = 0
left join receipts as receipt on receipt.ride_id = participant.ride_id
                             and receipt.user_id = participant.user_id
left join lateral (select id, created_at
                   from messages
                   where messages.ride_id = participant.ride_id
                     and messages.seq > greatest(coalesce(receipt.delivered_seq, 0), participant.from_seq)
                     and messages.sender_id <> participant.user_id
                     and messages.deleted_at is null
                   order by seq
                   limit 1) as message on coalesce(receipt.delivered_seq, 0) < push.seq
left join lateral (select count(*) as count
                   from participants access
                   join messages on messages.ride_id = access.ride_id
                                and messages.seq > greatest(access.from_seq, coalesce(receipt.read_seq, 0))
                                and messages.seq <= coalesce(access.until_seq, 9223372036854775807)
                   where access.ride_id = participant.ride_id
                     and access.user_id = participant.user_id
                     and messages.sender_id <> participant.user_id
                     and messages.deleted_at is null) as unread on true
where push.subscription_id = $1::uuid
  and push.ride_id = $2::text
  and push.lease = $3::bigint
