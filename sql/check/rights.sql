-- Returns the role's privileges that the server needs besides those for its statements, for `ridewire check`.
select current_database()::text as database,
       current_schema()::text as schema,
       current_user::text as role,
       coalesce(has_schema_privilege(current_schema()::text, 'create'), false) as creates,
       has_function_privilege('pg_advisory_xact_lock(bigint)', 'execute') as locks,
       has_function_privilege('pg_notify(text, text)', 'execute') as notifies
