-- Returns the version and the settings of the server, for `ridewire check`.
select current_setting('server_version_num')::bigint as version,
       pg_is_in_recovery() as is_standby,
       current_setting('transaction_read_only') = 'on' as is_read_only,
       current_setting('fsync') = 'on' as flushes,
       current_setting('full_page_writes') = 'on' as writes_full_pages,
       current_setting('synchronous_commit') as synchronous_commit,
       current_setting('synchronous_standby_names') <> '' as has_synchronous_standby,
       extract(epoch from clock_timestamp())::float8 as clock
