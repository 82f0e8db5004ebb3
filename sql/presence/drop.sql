-- Who was registered under leases that have run out.
delete from presence
where replica = any ($1::uuid[])
returning topic, user_id
