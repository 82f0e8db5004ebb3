-- Returns for each request the last message of another user at or before a seq that the user may see: the position of a
-- watermark. A participant sees the messages of each of their access intervals. For other users the whole log is searched;
-- whether they may see it is decided elsewhere.
select wanted.ride_id, wanted.user_id, wanted.up_to, message.seq, message.id
from unnest($1::text[], $2::text[], $3::bigint[]) as wanted (ride_id, user_id, up_to)
cross join lateral (select newest.seq, newest.id
                    from (select access.from_seq, access.until_seq
                          from participants access
                          where access.ride_id = wanted.ride_id
                            and access.user_id = wanted.user_id
                          union all
                          select 0, null
                          where not exists (select
                                            from participants access
                                            where access.ride_id = wanted.ride_id
                                              and access.user_id = wanted.user_id
                                              and coalesce(access.until_seq, 0) = 0)) as visible (from_seq, until_seq)
                    cross join lateral (select seq, id
                                        from messages
                                        where messages.ride_id = wanted.ride_id
                                          and messages.seq >= visible.from_seq
                                          and messages.seq <= least(wanted.up_to, visible.until_seq)
                                          and messages.sender_id <> wanted.user_id
                                        order by seq desc
                                        limit 1) as newest
                    order by newest.seq desc
                    limit 1) as message
