-- Processes the next `$2` batches of the feed that are older than `$1` seconds. Reports each participant of their rides whose delivered
-- watermark is behind another user's message of that age. A new message may then be due for its receivers, and after a receipt the
-- next message for the participant. Each watermark is reported once. The reports are queued for the relay as `message:undelivered`.
-- Each report also creates the pushes of the participant's Web Push subscriptions. Returns the number of processed batches and of
-- reports. A statement before this one has locked the search.
with page as materialized (select last_position, topics, first_seqs, last_seqs, created_at
                           from feed_ranges
                           where last_position > (select position from feed_cursors where name = 'undelivered')
                           order by last_position
                           limit $2::bigint),
     -- Up to the first batch that is not old enough, because a clock may have been set back.
     old as materialized (select last_position, topics, first_seqs, last_seqs
                          from (select page.*,
                                       bool_and(created_at <= statement_timestamp() - make_interval(secs => $1::float8))
                                           over (order by last_position) as is_old
                                from page) as page
                          where is_old),
     ride as (select substr(part.topic, length('ride/') + 1) as ride_id, min(part.first_seq) as first_seq,
                     max(part.last_seq) as last_seq
              from old
              cross join lateral unnest(old.topics, old.first_seqs, old.last_seqs) as part (topic, first_seq, last_seq)
              group by part.topic),
     -- A participant without a row in `undelivered` has received everything that was processed before.
     affected as (select participant.ride_id, participant.user_id, coalesce(receipt.delivered_seq, 0) as delivered_seq,
                         coalesce(receipt.read_seq, 0) as read_seq, last.delivered_seq as reported_at,
                         ride.last_seq,
                         greatest(receipt.delivered_seq, participant.from_seq,
                                  case when last.delivered_seq is null then ride.first_seq - 1 end) as checked_seq
                  from ride
                  join participants participant on participant.ride_id = ride.ride_id
                  left join receipts receipt on receipt.ride_id = participant.ride_id
                                            and receipt.user_id = participant.user_id
                  left join undelivered last on last.ride_id = participant.ride_id
                                            and last.user_id = participant.user_id
                  -- `coalesce` keeps the planner from using a partial index of current participants to look up a ride.
                  where coalesce(participant.until_seq, 0) = 0
                    and participant.from_seq < ride.last_seq
                    and coalesce(receipt.delivered_seq, 0) < ride.last_seq
                    and last.delivered_seq is distinct from coalesce(receipt.delivered_seq, 0)),
     checked as materialized (select affected.*, message.id, message.seq
                              from affected
                              left join lateral (select id, seq
                                                 from messages
                                                 where messages.ride_id = affected.ride_id
                                                   and messages.seq > affected.checked_seq
                                                   and messages.sender_id <> affected.user_id
                                                   and messages.deleted_at is null
                                                   and messages.seq <= affected.last_seq
                                                 order by seq
                                                 limit 1) as message on true),
     overdue as (select * from checked where id is not null),
     received as (delete from undelivered
                  using checked
                  where undelivered.ride_id = checked.ride_id
                    and undelivered.user_id = checked.user_id
                    and checked.reported_at is not null
                    and checked.id is null),
     recorded as (insert into undelivered (ride_id, user_id, delivered_seq)
                  select ride_id, user_id, delivered_seq
                  from overdue
                  on conflict (ride_id, user_id) do update
                      set delivered_seq = excluded.delivered_seq),
     report as (select 'ride/' || overdue.ride_id as topic, overdue.seq,
                       json_build_object('rideId', overdue.ride_id, 'userId', overdue.user_id, 'messageId', overdue.id,
                                         'seq', overdue.seq, 'unreadCount', unread.count,
                                         'at', to_char(statement_timestamp() at time zone 'UTC',
                                                       'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))::text as data
                from overdue
                cross join lateral (select count(*) as count
                                    from participants access
                                    join messages on messages.ride_id = access.ride_id
                                                 and messages.seq > greatest(access.from_seq, overdue.read_seq)
                                                 and messages.seq <= coalesce(access.until_seq, 9223372036854775807)
                                    where access.ride_id = overdue.ride_id
                                      and access.user_id = overdue.user_id
                                      and messages.sender_id <> overdue.user_id
                                      and messages.deleted_at is null) as unread),
     queued as (insert into feed_batches (topics, first_seqs, last_seqs, reports, event_count)
                select array_agg(topic), array_agg(seq), array_agg(seq), array_agg(data), count(*)
                from report
                having count(*) > 0),
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
               from (select max(last_position) as position from old) as processed
               where feed_cursors.name = 'undelivered'
                 and processed.position is not null)
select (select count(*) from old) as processed, (select count(*) from overdue) as reports
