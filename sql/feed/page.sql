-- The next events of the feed after a position, at most `$2`, and up to `$3` bytes, at least one. An event that its own log no longer
-- has is left out. A flag has no data here, but what that is made of.
select position, topic, seq, type, data, trace, created_at, message_id, labels
from (select place.position, place.topic, place.seq, coalesce(place.type, event.type) as type,
             coalesce(place.data, event.data) as data, event.trace,
             coalesce(event.created_at, flag.created_at, place.created_at) as created_at, flag.message_id, flag.labels,
             coalesce(octet_length(coalesce(place.data, event.data)), 0) as own_bytes,
             sum(coalesce(octet_length(coalesce(place.data, event.data)), 0))
               over (order by place.position rows unbounded preceding) as bytes
      from (select position, topic, seq, type, data, flag, created_at
            from feed
            where position > $1::bigint
            order by position
            limit $2::bigint) as place
      left join lateral (select type, data, trace, created_at
                         from events
                         where events.topic = place.topic
                           and events.seq = place.seq
                           and place.type is null) as event on true
      left join flags flag on flag.id = place.flag
      where coalesce(place.data, event.data) is not null
         or flag.id is not null) as found
where bytes - own_bytes < $3::bigint
order by position
