-- What watermarks say to a participant: for each, the last message of somebody else than its owner up to it, of those of the
-- reader's times on the ride.
select mark.user_id, mark.up_to, shown.seq
from unnest($3::text[], $4::bigint[]) as mark (user_id, up_to)
cross join lateral (select newest.seq
                    from participants mine
                    cross join lateral (select messages.seq
                                        from messages
                                        where messages.ride_id = mine.ride_id
                                          and messages.seq >= mine.from_seq
                                          and messages.seq <= least(mark.up_to, mine.until_seq)
                                          and messages.sender_id <> mark.user_id
                                        order by messages.seq desc
                                        limit 1) as newest
                    where mine.ride_id = $1::text
                      and mine.user_id = $2::text
                    order by newest.seq desc
                    limit 1) as shown
