-- Whether the log has the event that a batch put there: at its place, and of its moment, at which nobody else can have
-- put one there.
select exists (select from events where topic = $1::text and seq = $2::bigint and created_at = $3::timestamptz) as is_there
