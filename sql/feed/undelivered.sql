-- Processes the next `$2` events of the feed that are older than `$1` seconds. Adds `message:undelivered` to the feed for each affected
-- participant whose delivered watermark is behind a message of that age. A new message affects the other participants. A receipt
-- affects its own participant, because the next message may then be due. Each watermark is reported once. Each report also creates
-- the pushes of the participant's Web Push subscriptions. Returns the number of processed events, and the feed's new end if any
-- were added. A statement before this one has locked the head of the feed.
with page as materialized (select position, topic, seq, data, created_at
                           from feed
                           where position > (select position from feed_cursors where name = 'undelivered')
                           order by position
                           limit $2::bigint),
     old as materialized (select position, topic, seq, data
                          from page
                          where created_at <= statement_timestamp() - make_interval(secs => $1::float8)),
     cause as (select substr(old.topic, length('ride/') + 1) as ride_id, old.seq, event.type,
                      case event.type
                          when 'message:new' then event.data::json ->> 'senderId'
                          else event.data::json ->> 'userId' end as user_id
               from old
               join events event on event.topic = old.topic and event.seq = old.seq
               where old.data is null
                 and event.type in ('message:new', 'message:delivered', 'message:read')),
     affected as (select distinct participant.ride_id, participant.user_id, participant.from_seq
                  from cause
                  join participants participant on participant.ride_id = cause.ride_id
                  -- `coalesce` keeps the planner from using a partial index of current participants to look up a ride.
                  where coalesce(participant.until_seq, 0) = 0
                    and participant.from_seq < cause.seq
                    and (cause.type = 'message:new') = (participant.user_id <> cause.user_id)),
     overdue as materialized (select affected.ride_id, affected.user_id, coalesce(receipt.delivered_seq, 0) as delivered_seq,
                                     coalesce(receipt.read_seq, 0) as read_seq, message.id, message.seq,
                                     row_number() over (order by affected.ride_id, affected.user_id) as n
                              from affected
                              left join receipts receipt on receipt.ride_id = affected.ride_id
                                                        and receipt.user_id = affected.user_id
                              left join undelivered last on last.ride_id = affected.ride_id
                                                        and last.user_id = affected.user_id
                              cross join lateral (select id, seq
                                                  from messages
                                                  where messages.ride_id = affected.ride_id
                                                    and messages.seq > greatest(coalesce(receipt.delivered_seq, 0), affected.from_seq)
                                                    and messages.sender_id <> affected.user_id
                                                    and messages.deleted_at is null
                                                    and messages.created_at <= statement_timestamp() - make_interval(secs => $1)
                                                  order by seq
                                                  limit 1) as message
                              where last.delivered_seq is distinct from coalesce(receipt.delivered_seq, 0)),
     recorded as (insert into undelivered (ride_id, user_id, delivered_seq)
                  select ride_id, user_id, delivered_seq
                  from overdue
                  on conflict (ride_id, user_id) do update
                      set delivered_seq = excluded.delivered_seq),
     added as (insert into feed (position, topic, seq, type, data, created_at)
               select head.last_seq + overdue.n, 'ride/' || overdue.ride_id, overdue.seq, 'message:undelivered',
                      json_build_object('rideId', overdue.ride_id, 'userId', overdue.user_id, 'messageId', overdue.id,
                                        'seq', overdue.seq, 'unreadCount', unread.count,
                                        'at', to_char(statement_timestamp() at time zone 'UTC',
                                                      'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))::text,
                      statement_timestamp()
               from overdue
               cross join (select last_seq from topics where name = 'feed') as head
               cross join lateral (select count(*) as count
                                   from participants access
                                   join messages on messages.ride_id = access.ride_id
                                                and messages.seq > greatest(access.from_seq, overdue.read_seq)
                                                and messages.seq <= coalesce(access.until_seq, 9223372036854775807)
                                   where access.ride_id = overdue.ride_id
                                     and access.user_id = overdue.user_id
                                     and messages.sender_id <> overdue.user_id
                                     and messages.deleted_at is null) as unread),
     -- One for each subscription and ride. A push service that has requested a pause is not contacted earlier.
     pushed as (insert into pushes as push (subscription_id, ride_id, host, seq, created_at, attempts, due_at)
                select subscription.id, overdue.ride_id, subscription.host, overdue.seq, statement_timestamp(), 0, statement_timestamp()
                from overdue
                join push_subscriptions subscription on subscription.user_id = overdue.user_id
                on conflict (subscription_id, ride_id) do update
                    set seq = excluded.seq,
                        created_at = excluded.created_at,
                        due_at = case when push.lease is null then greatest(push.due_at, excluded.due_at) else excluded.due_at end,
                        lease = null),
     moved as (update feed_cursors
               set position = processed.position
               from (select max(position) as position from old) as processed
               where feed_cursors.name = 'undelivered'
                 and processed.position is not null),
     head as (update topics
              set last_seq = last_seq + reports.count
              from (select count(*) from overdue) as reports
              where topics.name = 'feed'
                and reports.count > 0
              returning topics.last_seq)
select (select count(*) from old) as processed, (select last_seq from head) as last_seq
