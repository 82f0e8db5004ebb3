-- Returns the rows of drivers that a replica may have missed. Versions are microseconds of the clock; a row with a
-- smaller version may be committed later. So the statement starts 10 s before the last version that the replica has received, or with
-- the last minute if the replica has received none.
select driver_id, available, lat, lng, at, version
from driver_state
where version > case when $1::bigint > 0 then $1 - 10000000
                     else ((extract(epoch from statement_timestamp()) - 60) * 1000000)::bigint end
