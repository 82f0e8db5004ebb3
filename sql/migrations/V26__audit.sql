-- What support and service users have viewed and done. An id is a UUID of version 7, so ids are in the order of time. `action` is the id of
-- the operation in openapi.yaml; `status` is that of the response, null where the client had gone before it. `subject_id` is the user whom
-- the request names.
create table audit (
    id         uuid primary key,
    at         timestamptz      not null,
    user_id    text collate "C" not null,
    role       text             not null,
    action     text             not null,
    ride_id    text collate "C",
    message_id uuid,
    subject_id text collate "C",
    webhook_id text collate "C",
    status     bigint,
    request_id text             not null
);
create index audit_of_subject on audit (subject_id) where subject_id is not null;
