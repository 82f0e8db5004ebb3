-- Deletes expired leases. If several replicas run this, each lease is returned to one of them.
delete from replicas
where expires_at <= clock_timestamp()
returning replica
