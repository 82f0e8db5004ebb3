-- Marks rides whose logs are expired and empty as trimmed. This is a statement of its own, so that it sees what `events/trim.sql` has
-- deleted. The row is checked again when it is updated, so a ride that is reopened meanwhile is not marked.
with expired as materialized (select ride_id
                              from rides
                              where closed_at is not null
                                and not log_is_trimmed
                                and ended_at <= statement_timestamp() - make_interval(secs => $1::float8)
                              order by ended_at
                              limit 50)
update rides
set log_is_trimmed = true
from expired
where rides.ride_id = expired.ride_id
  and rides.closed_at is not null
  and not exists (select from events where events.topic = 'ride/' || expired.ride_id)
