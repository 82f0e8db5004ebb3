-- Deletes at most `$2` of the oldest entries of the audit log, if they are older than `$1` seconds.
with old as (select id, at
             from audit
             where id > '00000000-0000-0000-0000-000000000000'
             order by id
             limit $2::bigint)
delete from audit
using old
where audit.id = old.id
  and old.at <= statement_timestamp() - make_interval(secs => $1::float8)
