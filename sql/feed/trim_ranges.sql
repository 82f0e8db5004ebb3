-- Deletes the oldest ranges of the feed, at most `$2`, if they are older than `$1` seconds.
with old as (select last_position, created_at from feed_ranges where last_position > 0 order by last_position limit $2::bigint)
delete from feed_ranges
using old
where feed_ranges.last_position = old.last_position
  and old.created_at <= statement_timestamp() - make_interval(secs => $1::float8)
