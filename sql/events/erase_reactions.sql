-- Removes users from the reactions in the events of edited messages.
with erased as materialized (select message_id, array_agg(user_id) as users
                             from unnest($1::uuid[], $2::text[]) as erased (message_id, user_id)
                             group by message_id)
update events
set data = (select json_object_agg(field.key, case when field.key = 'reactions' then kept.reactions else field.value end)
            from json_each(events.data::json) as field
            cross join lateral (select case when field.key = 'reactions'
                                                then (select coalesce(json_agg(json_build_object('emoji', kind -> 'emoji', 'userIds', others.users)), '[]')
                                                      from json_array_elements(field.value) as kind
                                                      cross join lateral (select json_agg(user_id) as users
                                                                          from json_array_elements_text(kind -> 'userIds') as user_id
                                                                          where user_id <> all (erased.users)) as others
                                                      where others.users is not null) end as reactions) as kept)::text
from erased
where events.message_id = erased.message_id
