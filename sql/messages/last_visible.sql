-- Converts watermarks for a reader with partial access. Each becomes the last message at or before it that another user than the
-- watermark's owner sent, within the reader's access intervals.
select watermark.user_id, watermark.up_to, visible.seq
from unnest($3::text[], $4::bigint[]) as watermark (user_id, up_to)
cross join lateral (select newest.seq
                    from participants access
                    cross join lateral (select messages.seq
                                        from messages
                                        where messages.ride_id = access.ride_id
                                          and messages.seq >= access.from_seq
                                          and messages.seq <= least(watermark.up_to, access.until_seq)
                                          and messages.sender_id <> watermark.user_id
                                        order by messages.seq desc
                                        limit 1) as newest
                    where access.ride_id = $1::text
                      and access.user_id = $2::text
                    order by newest.seq desc
                    limit 1) as visible
