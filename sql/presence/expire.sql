-- Leases that have run out. Of several replicas that look, one gets each.
delete from replicas
where expires_at <= clock_timestamp()
returning replica
