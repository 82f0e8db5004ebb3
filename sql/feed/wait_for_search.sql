-- Waits until a search for undelivered messages that has begun is committed.
select position from feed_cursors where name = 'undelivered' for no key update
