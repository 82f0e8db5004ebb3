-- Locks the progress of the search for undelivered messages, after a search that has begun.
select position from feed_cursors where name = 'undelivered' for no key update
