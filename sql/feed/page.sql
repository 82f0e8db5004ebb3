-- The next events of the feed after a position, at most `$2`, and up to `$3` bytes, at least one. An event that its own log no longer
-- has is left out.
select position, topic, seq, type, data, trace, created_at
from (select place.position, place.topic, place.seq, coalesce(place.type, event.type) as type,
             coalesce(place.data, event.data) as data, event.trace, coalesce(event.created_at, place.created_at) as created_at,
             sum(octet_length(coalesce(place.data, event.data))) over (order by place.position rows unbounded preceding) as bytes
      from (select position, topic, seq, type, data, created_at
            from feed
            where position > $1::bigint
            order by position
            limit $2::bigint) as place
      left join lateral (select type, data, trace, created_at
                         from events
                         where events.topic = place.topic
                           and events.seq = place.seq
                           and place.data is null) as event on true
      where coalesce(place.data, event.data) is not null) as found
where bytes - octet_length(data) < $3::bigint
order by position
