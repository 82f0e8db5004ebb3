-- Erases the labels of flags on deleted messages.
update flags
set labels = null
where message_id = any ($1::uuid[])
