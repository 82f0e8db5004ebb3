-- What a replica may not have heard of drivers. Versions are of the clock, and commits may come in another order: so from
-- some seconds before the last that it has heard, or of the last minute where it has heard nothing.
select driver_id, available, lat, lng, at, version
from driver_state
where version > case when $1::bigint > 0 then $1 - 10000000
                     else ((extract(epoch from statement_timestamp()) - 60) * 1000000)::bigint end
