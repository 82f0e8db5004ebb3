-- Whether writes can succeed: neither the database nor the session only reads, and the schema is there and ours to write.
select current_setting('transaction_read_only') = 'off'
       and coalesce(has_table_privilege(to_regclass('topics'), 'update'), false) as writable
