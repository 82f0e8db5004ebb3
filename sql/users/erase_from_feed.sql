-- Erases a user's topic from the feed and from the webhook deliveries, and the `message:undelivered` events for the user.
-- Increments the erasure counter, because replicas may have read some of it meanwhile. A statement before this one has locked the
-- endpoints, so no transaction creates deliveries. Queues are locked before their deliveries.
with queues as (delete from webhook_queues
                where topic = 'user/' || $1::text
                  and topic >= 'user/'
                  and topic < 'user0'
                returning topic),
     deliveries as (delete from webhook_deliveries
                    where topic = 'user/' || $1
                      and topic >= 'user/'
                      and topic < 'user0'
                      and (select count(*) from queues) >= 0),
     user_entries as (delete from feed
                where topic = 'user/' || $1
                  and topic >= 'user/'
                  and topic < 'user0'),
     undelivered_entries as (delete from feed
                            where type = 'message:undelivered'
                              and data::json ->> 'userId' = $1)
update topics
set last_seq = last_seq + 1
where name = 'users'
returning last_seq as erasures
