-- Returns how many connections this role may open here, and how many other programs have open, for `ridewire check`.
select current_setting('max_connections')::bigint
       - current_setting('superuser_reserved_connections')::bigint
       - coalesce(current_setting('reserved_connections', true), '0')::bigint as allowed,
       (select rolconnlimit::bigint from pg_roles where rolname = current_user) as allowed_to_role,
       (select datconnlimit::bigint from pg_database where datname = current_database()) as allowed_to_database,
       (select count(*)
        from pg_stat_get_activity(null) session
        where session.datid is not null
          and session.application_name is distinct from 'ridewire') as others
