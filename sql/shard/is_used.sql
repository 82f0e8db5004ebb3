-- Returns whether the schema has data of rides or users.
select exists (select from topics where name >= 'ride/' and name < 'user0' and name <> 'users') as is_used, current_schema() as schema
