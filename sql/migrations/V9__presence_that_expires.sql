-- A registration that no replica holds: it expires by itself. A driver who sets their availability is present for the
-- presence grace, whether or not a connection is open. Where a replica's lease holds a row, `expires_at` is null.
alter table presence add column expires_at timestamptz;
create index presence_by_expiry on presence (expires_at) where expires_at is not null;

-- An earlier version may have left users online whom no replica has registered. They expire like everybody else.
insert into presence (topic, user_id, replica, expires_at)
select state.topic, state.user_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff', clock_timestamp() + interval '15 seconds'
from presence_states state
where state.online
  and not exists (select
                  from presence
                  where presence.topic = state.topic
                    and presence.user_id = state.user_id);
