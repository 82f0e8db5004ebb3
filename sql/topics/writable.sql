-- Returns whether writes can succeed: the database and the session are not read-only, and the role may write to the schema.
select current_setting('transaction_read_only') = 'off'
       and coalesce(has_table_privilege(to_regclass('topics'), 'update'), false) as writable
