-- Returns whether any batch up to `$1` has no feed positions yet.
select exists (select from feed_batches where id > 0 and id <= $1::bigint) as has_rows
