-- Locks the head of the feed, unless another relay has locked it.
select last_seq from topics where name = 'feed' for no key update skip locked
