-- Whether any batch up to `$1` has no positions in the feed yet.
select exists (select from feed_batches where id > 0 and id <= $1::bigint) as is_waiting
