-- Returns which shard this schema is, if the deployment has several.
select number, count, deployment
from shard
where number >= 0
