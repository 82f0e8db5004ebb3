-- Adds what users of other shards receive about changed rides `$6`, in the order of the events. Participants without an event receive
-- only the new entry of the ride in their list, unless they have left before.
--
-- The ids never fall behind the clock, in microseconds. So they grow although a failover or a restored backup has lost the last ids, which
-- the other shards may have applied. Only the holder of the advisory lock moves the sequence. It moves it beyond all ids in use.
with event as (select *
               from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]) with ordinality
                        as new (ride_id, user_id, event_type, data, trace, number)),
     entry as (select distinct on (participant.ride_id, participant.user_id)
                      participant.user_shard, participant.user_id, participant.ride_id, participant.from_seq, participant.until_seq,
                      participant.joined_at, participant.is_over, participant.is_read, ride.status, ride.ended_at
               from participants participant
               join rides ride on ride.ride_id = participant.ride_id
               where participant.ride_id = any ($6::text[])
                 and participant.user_shard is not null
               order by participant.ride_id, participant.user_id, participant.from_seq desc),
     advanced as materialized (select setval('outbox_id_seq', (extract(epoch from clock_timestamp()) * 1000000)::bigint)
                               where coalesce(pg_sequence_last_value('outbox_id_seq'), 0)
                                         < (extract(epoch from clock_timestamp()) * 1000000)::bigint
                                 and pg_try_advisory_xact_lock(7243393, hashtext(current_schema())))
insert into outbox (shard, user_id, ride_id, type, data, trace, from_seq, until_seq, joined_at, status, is_ended, is_over, is_read, added_at)
select entry.user_shard, entry.user_id, entry.ride_id, event.event_type, event.data, event.trace, entry.from_seq, entry.until_seq,
       entry.joined_at, entry.status, entry.ended_at is not null, entry.is_over, entry.is_read, statement_timestamp()
from (select count(*) from advanced) as sequence
cross join entry
left join event on event.ride_id = entry.ride_id and event.user_id = entry.user_id
where event.number is not null
   or entry.until_seq is null
order by event.number
