-- Deletes the oldest entries of the feed with a row of their own, at most `$2`, if they are older than `$1` seconds.
with old as (select position, flag, created_at from feed where position > 0 order by position limit $2::bigint),
     deleted_flags as (delete from flags
                       using old
                       where flags.id = old.flag
                         and old.created_at <= statement_timestamp() - make_interval(secs => $1::float8))
delete from feed
using old
where feed.position = old.position
  and old.created_at <= statement_timestamp() - make_interval(secs => $1::float8)
