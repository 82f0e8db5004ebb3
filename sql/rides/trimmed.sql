-- Of the rides whose logs are being taken, those with nothing left. A statement of its own, that sees what was taken. A ride that is
-- opened again meanwhile is not one of them: what the row says by then is looked at once more.
with old as materialized (select ride_id
                          from rides
                          where closed_at is not null
                            and not log_is_trimmed
                            and ended_at <= statement_timestamp() - make_interval(secs => $1::float8)
                          order by ended_at
                          limit 50)
update rides
set log_is_trimmed = true
from old
where rides.ride_id = old.ride_id
  and rides.closed_at is not null
  and not exists (select from events where events.topic = 'ride/' || old.ride_id)
