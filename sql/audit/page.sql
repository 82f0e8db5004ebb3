-- Returns the entries of the audit log before `$1`, newest first.
select id, at, user_id, role, action, ride_id, message_id, subject_id, webhook_id, status, request_id
from audit
where id < $1::uuid
order by id desc
limit $2::bigint
