-- Deletes what was handed to a person who is erased.
delete from handovers where user_id = $1::text
