-- Adds entries to the audit log, one for each element of the arrays. An entry that exists already was written before, and the
-- response was lost. If a request names only a message, its ride is looked up.
insert into audit (id, at, user_id, role, action, ride_id, message_id, subject_id, webhook_id, status, request_id)
select entry.id, entry.at, entry.user_id, entry.role, entry.action, coalesce(entry.ride_id, message.ride_id), entry.message_id,
       entry.subject_id, entry.webhook_id, entry.status, entry.request_id
from unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::uuid[], $8::text[], $9::text[],
            $10::bigint[], $11::text[])
       as entry (id, at, user_id, role, action, ride_id, message_id, subject_id, webhook_id, status, request_id)
left join messages message on message.id = entry.message_id
on conflict (id) do nothing
