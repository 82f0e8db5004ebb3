-- What takes old logs and messages away, a person's content, and a person's logins.

-- Rides whose logs retention has taken, and when it looks for the next: by their end.
alter table rides add column log_is_trimmed boolean not null default false;
create index rides_to_trim on rides (ended_at) where closed_at is not null and not log_is_trimmed;
create index rides_to_forget on rides (ended_at) where log_is_trimmed;

-- What users were told has no ride whose end would count, but an age. ('0' follows '/'.)
create index events_of_users on events (created_at) where topic >= 'user/' and topic < 'user0';

-- One person's content.
create index messages_by_sender on messages (sender_id, id);
create index ride_locations_by_driver on ride_locations (driver_id);

-- Tokens of these users that were issued until then count no longer. A version is of the clock, and only grows.
create table revocations (
    user_id    text collate "C" primary key,
    revoked_at timestamptz      not null,
    version    bigint           not null
);
create index revocations_by_version on revocations (version);
