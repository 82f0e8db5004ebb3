-- Takes the oldest positions of the feed that are older than `$1` seconds: at most `$2`.
with old as (select position, created_at from feed where position > 0 order by position limit $2::bigint)
delete from feed
using old
where feed.position = old.position
  and old.created_at <= statement_timestamp() - make_interval(secs => $1::float8)
