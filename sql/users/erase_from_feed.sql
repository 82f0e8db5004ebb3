-- Erases what the feed and the deliveries to webhooks have of a user's topic, and the `message:undelivered` for them; and counts an
-- erasure, since replicas may have read some of it meanwhile. Endpoints are locked, by a statement before this one, so nobody creates
-- deliveries. Queues are locked before their deliveries.
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
     places as (delete from feed
                where topic = 'user/' || $1
                  and topic >= 'user/'
                  and topic < 'user0'),
     undelivered_events as (delete from feed
                            where type = 'message:undelivered'
                              and data::json ->> 'userId' = $1)
update topics
set last_seq = last_seq + 1
where name = 'users'
returning last_seq as erasures
