-- Returns the next entries of the feed after a position: at most `$2`, and up to `$3` bytes, but at least one. The type and the data
-- are null if the event has expired from its topic's log. A flag has no data here, only the columns to build it from.
--
-- `limit 1` makes Postgres look up each event by its key. It estimates too many entries, and would otherwise read the whole log.
select position, topic, seq, type, data, trace, created_at, message_id, labels
from (select entry.position, entry.topic, entry.seq, coalesce(entry.type, event.type) as type,
             coalesce(entry.data, event.data) as data, event.trace,
             coalesce(event.created_at, flag.created_at, entry.created_at) as created_at, flag.message_id, flag.labels,
             coalesce(octet_length(coalesce(entry.data, event.data)), 0) as own_bytes,
             sum(coalesce(octet_length(coalesce(entry.data, event.data)), 0))
               over (order by entry.position rows unbounded preceding) as bytes
      from feed_entries($1::bigint, $2::bigint) as entry
      left join lateral (select type, data, trace, created_at
                         from events
                         where events.topic = entry.topic
                           and events.seq = entry.seq
                           and entry.type is null
                         limit 1) as event on true
      left join lateral (select id, message_id, labels, created_at
                         from flags
                         where flags.id = entry.flag
                         limit 1) as flag on true) as found
where bytes - own_bytes < $3::bigint
order by position
