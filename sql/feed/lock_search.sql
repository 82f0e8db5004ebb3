-- Locks the progress of the search for undelivered messages, unless another replica has locked it.
select position from feed_cursors where name = 'undelivered' for no key update skip locked
