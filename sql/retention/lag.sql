-- Returns for each kind of data how long the oldest is overdue for deletion, in seconds; null if none is. Retention times: rides'
-- logs `$1` seconds after the ride's end, users' events `$1` after their commit, messages `$2` after the ride's end, and the feed
-- `$3` after each event.
select (select extract(epoch from statement_timestamp() - make_interval(secs => $1::float8) - ended_at)
        from rides
        where closed_at is not null
          and not log_is_trimmed
          and ended_at <= statement_timestamp() - make_interval(secs => $1)
        order by ended_at
        limit 1)::float8 as ride_logs,
       (select extract(epoch from statement_timestamp() - make_interval(secs => $1) - created_at)
        from events
        where topic >= 'user/'
          and topic < 'user0'
          and created_at <= statement_timestamp() - make_interval(secs => $1)
        order by created_at
        limit 1)::float8 as user_logs,
       (select extract(epoch from statement_timestamp() - make_interval(secs => $2::float8) - ended_at)
        from rides
        where log_is_trimmed
          and ended_at <= statement_timestamp() - make_interval(secs => $2)
        order by ended_at
        limit 1)::float8 as messages,
       (select extract(epoch from statement_timestamp() - make_interval(secs => $3::float8) - oldest.created_at)
        from feed_entries(0, 1) as oldest
        where oldest.created_at <= statement_timestamp() - make_interval(secs => $3))::float8 as feed
