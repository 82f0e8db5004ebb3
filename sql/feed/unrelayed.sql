-- Returns the number of batches without feed positions, at most 1,000.
select count(*) from (select from feed_batches where id > 0 limit 1000) as unrelayed
