-- Returns whether the next event of the search for undelivered messages is older than `$1` seconds.
select coalesce((select feed.created_at
                 from feed
                 where feed.position > (select position from feed_cursors where name = 'undelivered')
                 order by feed.position
                 limit 1) <= statement_timestamp() - make_interval(secs => $1::float8), false) as is_due
