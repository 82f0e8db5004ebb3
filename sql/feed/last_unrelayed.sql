-- Returns the last batch without feed positions.
select max(id) as id from feed_batches where id > 0
