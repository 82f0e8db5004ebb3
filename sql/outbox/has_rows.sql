-- Returns whether any row up to `$1` is still in the outbox.
select exists (select from outbox where id <= $1::bigint) as has_rows
