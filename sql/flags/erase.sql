-- Takes the labels from what was flagged of deleted messages.
update flags
set labels = null
where message_id = any ($1::uuid[])
