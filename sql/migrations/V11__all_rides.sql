-- All rides, newest first, for support and the platform: of any status, and of one.
create index rides_by_creation on rides (created_at desc, ride_id desc);
create index rides_by_status on rides (status, created_at desc, ride_id desc);
