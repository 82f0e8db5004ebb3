-- Everything live about a ride.

-- Who reacted how: `[["👍", ["rider_1"]], …]`, in the order of the first of each. In the message's own row: it is
-- never wanted without it, is bounded (20 kinds), and changes under the same lock.
alter table messages add column reactions text not null default '[]';
