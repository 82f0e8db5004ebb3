-- The feed stores the events of a batch by their ranges, in one row, and not in a row for each event.

-- No server relays meanwhile.
lock table feed, feed_batches in access exclusive mode;

-- The events of rides on the feed, a row for each batch: for each topic the seqs of its first and last event. The positions of a row
-- are contiguous, in the order of its topics.
create table feed_ranges (
    last_position  bigint primary key,
    first_position bigint      not null,
    topics         text[]      not null,
    first_seqs     bigint[]    not null,
    last_seqs      bigint[]    not null,
    created_at     timestamptz not null
);
insert into feed_ranges (last_position, first_position, topics, first_seqs, last_seqs, created_at)
select position, position, array [topic], array [seq], array [seq], created_at
from feed
where type is null
  and topic >= 'ride/'
  and topic < 'ride0';

-- What remains has a row for each event: the events that are on the feed alone, and those of users, which an erasure deletes.
delete from feed
where type is null
  and topic >= 'ride/'
  and topic < 'ride0';

-- A row has the number of its events, and only topics of rides or only those of users. The data of `message:undelivered` has a row of
-- its own, in which each topic and seq are those of a message, as with `flags`.
alter table feed_batches
    add column reports     text[],
    add column event_count bigint;
with old as (delete from feed_batches returning id, topics, first_seqs, last_seqs, flags)
insert into feed_batches (topics, first_seqs, last_seqs, flags, event_count)
select array [part.topic], array [part.first_seq], array [part.last_seq], case when part.flag is not null then array [part.flag] end,
       part.last_seq - part.first_seq + 1
from old
cross join lateral unnest(old.topics, old.first_seqs, old.last_seqs, old.flags) with ordinality
               as part (topic, first_seq, last_seq, flag, ordinal)
order by old.id, part.ordinal;
alter table feed_batches alter column event_count set not null;

-- Returns the entries of the feed after a position, at most `at_most`, and at least one if there is any. `type` is null where the
-- event is in its topic's log.
--
-- `parallel unsafe` keeps Postgres from starting parallel workers for a page: it estimates far more rows than there are.
create function feed_entries(after_position bigint, at_most bigint)
    returns table (
        "position" bigint,
        topic      text,
        seq        bigint,
        type       text,
        data       text,
        flag       uuid,
        created_at timestamptz
    )
    language sql stable parallel unsafe rows 100
as $$
    select entry.position, entry.topic, entry.seq, entry.type, entry.data, entry.flag, entry.created_at
    from ((select part.last_position - event.number as position, part.topic, part.last_seq - event.number as seq, null::text as type,
                  null::text as data, null::uuid as flag, batch.created_at
           from (select feed_ranges.last_position, feed_ranges.first_position, feed_ranges.topics, feed_ranges.first_seqs,
                        feed_ranges.last_seqs, feed_ranges.created_at
                 from feed_ranges
                 where feed_ranges.last_position > after_position
                 order by feed_ranges.last_position
                 limit at_most) as batch
           cross join lateral (select part.topic, part.first_seq, part.last_seq,
                                      batch.first_position - 1
                                          + (sum(part.last_seq - part.first_seq + 1) over (order by part.ordinal))::bigint as last_position
                               from unnest(batch.topics, batch.first_seqs, batch.last_seqs) with ordinality
                                        as part (topic, first_seq, last_seq, ordinal)) as part
           cross join lateral generate_series(0, part.last_seq - part.first_seq) as event (number)
           where part.last_position - event.number > after_position
           -- The first column lets Postgres expand only as many rows as it needs.
           order by batch.last_position, part.last_position - event.number
           limit at_most)
          union all
          (select feed.position, feed.topic, feed.seq, feed.type, feed.data, feed.flag, feed.created_at
           from feed
           where feed.position > after_position
           order by feed.position
           limit at_most)) as entry
    order by entry.position
    limit at_most
$$;
