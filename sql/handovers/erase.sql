-- Deletes the handovers to a user who is erased.
delete from handovers where user_id = $1::text
