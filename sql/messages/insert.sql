insert into messages (id, ride_id, seq, sender_id, sender_role, content, metadata, client_message_id,
                      content_hash, created_at)
select *
from unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::bytea[], $10::timestamptz[])
