-- Removes a person who is erased from the entries of requests that named them.
update audit
set subject_id = null
where subject_id = $1::text
