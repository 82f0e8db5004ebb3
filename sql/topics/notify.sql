-- Sends the payloads `$1` to all replicas. Sends each value (`$2` is its topic, `$3` its JSON) to the replicas that follow its topic,
-- except to the sender (`$4`). As long as a replica of an earlier version runs, which has no channel of its own, all values go to all
-- replicas. Postgres accepts payloads of less than 8000 bytes, so the values of a channel are split into parts.
with value as materialized (select topic, value, ordinal
                            from unnest($2::text[], $3::text[]) with ordinality as value (topic, value, ordinal)),
     sent as (select '_' || replica.channel as suffix, value.value, value.ordinal
              from value
              join followers follower on follower.topic = value.topic
              join replicas replica on replica.replica = follower.replica
              where replica.channel <> $4::text
                and not exists (select from replicas where channel is null)
              union all
              select '', value, ordinal
              from value
              where exists (select from replicas where channel is null)),
     part as (select suffix, value, ordinal,
                     sum(octet_length(value) + 1) over (partition by suffix order by ordinal) / 3900 as part
              from sent),
     notification as (select '' as suffix, payload
                      from unnest($1::text[]) as common (payload)
                      union all
                      select suffix, '{"v":1,"values":[' || string_agg(value, ',' order by ordinal) || ']}'
                      from part
                      group by suffix, part)
select set_config('synchronous_commit', 'off', true), pg_notify(notify_channel() || suffix, payload)
from notification
