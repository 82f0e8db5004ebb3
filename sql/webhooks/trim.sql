-- Deletes at most `$3` deliveries in the state `$1` that ended more than `$2` seconds ago.
with old as (select webhook_id, position
             from webhook_deliveries
             where state = $1::text
               and finished_at <= statement_timestamp() - make_interval(secs => $2::float8)
             order by finished_at
             limit $3::bigint)
delete from webhook_deliveries as delivery
using old
where delivery.webhook_id = old.webhook_id
  and delivery.position = old.position
  and delivery.state <> 'pending'
