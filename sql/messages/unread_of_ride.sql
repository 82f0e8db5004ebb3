-- Returns the number of other users' undeleted messages after a read watermark: within the user's access intervals, or in the
-- whole log with `$4` (staff).
select count(*) as unread
from (select access.from_seq, access.until_seq
      from participants access
      where access.ride_id = $1::text
        and access.user_id = $3::text
        and not $4::boolean
      union all
      select 0, null
      where $4) as visible (from_seq, until_seq)
join messages on messages.ride_id = $1
             and messages.seq > greatest(visible.from_seq, $2::bigint)
             and messages.seq <= coalesce(visible.until_seq, 9223372036854775807)
where messages.sender_id <> $3
  and messages.deleted_at is null
