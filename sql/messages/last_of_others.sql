-- The last message of somebody else at or before a seq, of those that the user may see: where a watermark may stand. A
-- participant sees the messages of each of their times on the ride; who is on no ride now sees all (staff) or nothing, which
-- is not decided here.
select wanted.ride_id, wanted.user_id, wanted.up_to, message.seq, message.id
from unnest($1::text[], $2::text[], $3::bigint[]) as wanted (ride_id, user_id, up_to)
cross join lateral (select newest.seq, newest.id
                    from (select mine.from_seq, mine.until_seq
                          from participants mine
                          where mine.ride_id = wanted.ride_id
                            and mine.user_id = wanted.user_id
                          union all
                          select 0, null
                          where not exists (select
                                            from participants mine
                                            where mine.ride_id = wanted.ride_id
                                              and mine.user_id = wanted.user_id
                                              and coalesce(mine.until_seq, 0) = 0)) as seen (from_seq, until_seq)
                    cross join lateral (select seq, id
                                        from messages
                                        where messages.ride_id = wanted.ride_id
                                          and messages.seq >= seen.from_seq
                                          and messages.seq <= least(wanted.up_to, seen.until_seq)
                                          and messages.sender_id <> wanted.user_id
                                        order by seq desc
                                        limit 1) as newest
                    order by newest.seq desc
                    limit 1) as message
