-- Deletes at most `$2` handovers that are older than `$1` seconds.
delete from handovers
where ctid = any (array(select ctid
                        from handovers
                        where at <= statement_timestamp() - make_interval(secs => $1::float8)
                        order by at
                        limit $2::bigint))
