-- Others' undeleted messages after a read watermark: those of each of the user's times on the ride, or all of them where `$4`
-- says so (staff).
select count(*) as unread
from (select mine.from_seq, mine.until_seq
      from participants mine
      where mine.ride_id = $1::text
        and mine.user_id = $3::text
        and not $4::boolean
      union all
      select 0, null
      where $4) as seen (from_seq, until_seq)
join messages on messages.ride_id = $1
             and messages.seq > greatest(seen.from_seq, $2::bigint)
             and messages.seq <= coalesce(seen.until_seq, 9223372036854775807)
where messages.sender_id <> $3
  and messages.deleted_at is null
