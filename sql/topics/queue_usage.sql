-- Returns the used fraction of the notification queue, 0 to 1. A listener that does not read lets it fill.
select pg_notification_queue_usage() as usage
