-- The last batch that has no positions in the feed yet.
select max(id) as id from feed_batches where id > 0
