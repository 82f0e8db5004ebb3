-- Deletes at most `$1` subscriptions that have expired.
delete from push_subscriptions
where id in (select id
             from push_subscriptions
             where expires_at <= statement_timestamp()
             order by expires_at
             limit $1::bigint)
