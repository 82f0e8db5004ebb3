-- How much of the queue of notifications is full, 0 to 1: a listener that does not read lets it fill.
select pg_notification_queue_usage() as usage
