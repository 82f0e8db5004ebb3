-- What has become of batches whose COMMIT was sent and not answered: for each topic that one wrote to, by the first event that
-- it put there. Erasure changes what an event says, not which batch wrote it. Where the log has lost that place, and has gone on,
-- nobody can tell. To be asked under the locks of these topics.
select wanted.topic, wanted.batch,
       case when event.batch = wanted.batch or topics.last_batch = wanted.batch then 'stored'
            when event.seq is not null then 'superseded'
            when topics.last_seq >= wanted.seq or topics.name is null and wanted.seq > 1 then 'trimmed'
            else 'absent' end as outcome
from unnest($1::text[], $2::bigint[], $3::bigint[]) as wanted (topic, seq, batch)
left join topics on topics.name = wanted.topic
left join events event on event.topic = wanted.topic
                      and event.seq = wanted.seq
