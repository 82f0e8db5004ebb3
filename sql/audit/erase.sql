-- Removes an erased user from the entries of requests that named the user.
update audit
set subject_id = null
where subject_id = $1::text
