-- Takes the next `$2` events of the feed that are older than `$1` seconds, and puts `message:undelivered` on the feed for each
-- participant whom they concern and whose delivered watermark has not reached a message of that age: for other users' new messages,
-- and for the participant's own receipts, after which the next message may be due. Once for each watermark. Each creates the pushes of
-- the participant's subscriptions to Web Push. Says how many events it has taken, and where the feed ends then, if it has put any there.
-- The head of the feed is locked, by a statement before this one.
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
     concerned as (select distinct person.ride_id, person.user_id, person.from_seq
                   from cause
                   join participants person on person.ride_id = cause.ride_id
                   -- Written so that no index of the participants who have not left is taken for one of rides.
                   where coalesce(person.until_seq, 0) = 0
                     and person.from_seq < cause.seq
                     and (cause.type = 'message:new') = (person.user_id <> cause.user_id)),
     missing as materialized (select concerned.ride_id, concerned.user_id, coalesce(receipt.delivered_seq, 0) as delivered_seq,
                                     coalesce(receipt.read_seq, 0) as read_seq, message.id, message.seq,
                                     row_number() over (order by concerned.ride_id, concerned.user_id) as n
                              from concerned
                              left join receipts receipt on receipt.ride_id = concerned.ride_id
                                                        and receipt.user_id = concerned.user_id
                              left join undelivered last on last.ride_id = concerned.ride_id
                                                        and last.user_id = concerned.user_id
                              cross join lateral (select id, seq
                                                  from messages
                                                  where messages.ride_id = concerned.ride_id
                                                    and messages.seq > greatest(coalesce(receipt.delivered_seq, 0), concerned.from_seq)
                                                    and messages.sender_id <> concerned.user_id
                                                    and messages.deleted_at is null
                                                    and messages.created_at <= statement_timestamp() - make_interval(secs => $1)
                                                  order by seq
                                                  limit 1) as message
                              where last.delivered_seq is distinct from coalesce(receipt.delivered_seq, 0)),
     remembered as (insert into undelivered (ride_id, user_id, delivered_seq)
                    select ride_id, user_id, delivered_seq
                    from missing
                    on conflict (ride_id, user_id) do update
                        set delivered_seq = excluded.delivered_seq),
     placed as (insert into feed (position, topic, seq, type, data, created_at)
                select head.last_seq + missing.n, 'ride/' || missing.ride_id, missing.seq, 'message:undelivered',
                       json_build_object('rideId', missing.ride_id, 'userId', missing.user_id, 'messageId', missing.id,
                                         'seq', missing.seq, 'unreadCount', unread.count,
                                         'at', to_char(statement_timestamp() at time zone 'UTC',
                                                       'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))::text,
                       statement_timestamp()
                from missing
                cross join (select last_seq from topics where name = 'feed') as head
                cross join lateral (select count(*) as count
                                    from participants mine
                                    join messages on messages.ride_id = mine.ride_id
                                                 and messages.seq > greatest(mine.from_seq, missing.read_seq)
                                                 and messages.seq <= coalesce(mine.until_seq, 9223372036854775807)
                                    where mine.ride_id = missing.ride_id
                                      and mine.user_id = missing.user_id
                                      and messages.sender_id <> missing.user_id
                                      and messages.deleted_at is null) as unread),
     -- One for each subscription and ride. A push service that has asked for a pause is not asked sooner.
     pushed as (insert into pushes as push (subscription_id, ride_id, host, seq, created_at, attempts, due_at)
                select subscription.id, missing.ride_id, subscription.host, missing.seq, statement_timestamp(), 0, statement_timestamp()
                from missing
                join push_subscriptions subscription on subscription.user_id = missing.user_id
                on conflict (subscription_id, ride_id) do update
                    set seq = excluded.seq,
                        created_at = excluded.created_at,
                        due_at = case when push.lease is null then greatest(push.due_at, excluded.due_at) else excluded.due_at end,
                        lease = null),
     moved as (update feed_cursors
               set position = reached.position
               from (select max(position) as position from old) as reached
               where feed_cursors.name = 'undelivered'
                 and reached.position is not null),
     head as (update topics
              set last_seq = last_seq + added.count
              from (select count(*) from missing) as added
              where topics.name = 'feed'
                and added.count > 0
              returning topics.last_seq)
select (select count(*) from old) as taken, (select last_seq from head) as last_seq
