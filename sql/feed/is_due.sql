-- Returns whether the next batch of the search for undelivered messages is older than `$1` seconds.
select coalesce((select feed_ranges.created_at
                 from feed_ranges
                 where feed_ranges.last_position > (select position from feed_cursors where name = 'undelivered')
                 order by feed_ranges.last_position
                 limit 1) <= statement_timestamp() - make_interval(secs => $1::float8), false) as is_due
