-- Returns those of the next `$2` available drivers after `$1`, by id, that have no registration, and the last of the page. Such
-- drivers exist after a crash of the database, which empties the presence tables.
with page as materialized (select driver_id
                           from driver_state
                           where available
                             and driver_id > $1::text
                           order by driver_id
                           limit $2::bigint)
select (select max(driver_id) from page) as last,
       array (select driver_id
              from page
              where not exists (select
                                from presence
                                where presence.topic = 'drivers'
                                  and presence.user_id = page.driver_id)) as unregistered
