-- Returns the outcome of in-doubt batches, whose COMMIT got no response. For each topic that a batch wrote to, the batch's
-- first event there is looked up. The caller must hold the locks of these topics.
--
-- - `stored`: the batch is committed. An erased event still has its batch, so it counts as stored.
-- - `superseded`: another batch has the seq, so this one is not committed.
-- - `absent`: no batch has the seq yet.
-- - `trimmed`: unknown, because retention has deleted the event, or the topic itself.
select in_doubt.topic, in_doubt.batch,
       case when event.batch = in_doubt.batch or topics.last_batch = in_doubt.batch then 'stored'
            when event.seq is not null then 'superseded'
            when topics.last_seq >= in_doubt.seq or topics.name is null and in_doubt.seq > 1 then 'trimmed'
            else 'absent' end as outcome
from unnest($1::text[], $2::bigint[], $3::bigint[]) as in_doubt (topic, seq, batch)
left join topics on topics.name = in_doubt.topic
left join events event on event.topic = in_doubt.topic
                      and event.seq = in_doubt.seq
