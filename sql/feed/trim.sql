-- Takes the oldest positions of the feed that are older than `$1` seconds: at most `$2`.
with old as (select position, flag, created_at from feed where position > 0 order by position limit $2::bigint),
     flags_gone as (delete from flags
                    using old
                    where flags.id = old.flag
                      and old.created_at <= statement_timestamp() - make_interval(secs => $1::float8))
delete from feed
using old
where feed.position = old.position
  and old.created_at <= statement_timestamp() - make_interval(secs => $1::float8)
