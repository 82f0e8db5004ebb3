-- How many batches have no positions in the feed yet, of the oldest 1,000.
select count(*) from (select from feed_batches where id > 0 limit 1000) as waiting
