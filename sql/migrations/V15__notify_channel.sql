-- The channel of NOTIFY. Postgres keeps databases apart, not schemas, so each schema has its own; `public` keeps the name that
-- earlier versions listen on. A name has at most 63 bytes, as a schema's may have, hence the hash.
create function notify_channel() returns text
language sql stable
as $$
    select case
        when coalesce(current_schema(), 'public') = 'public' then 'ridewire'
        else 'ridewire_' || left(encode(sha256(convert_to(current_schema()::text, 'UTF8')), 'hex'), 32)
    end
$$;
