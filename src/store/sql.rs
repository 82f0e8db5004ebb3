//! The statements, one file each. `prepare` keeps them by their text, so each has exactly one.

macro_rules! statements {
    ($($name:ident = $file:literal;)*) => {
        $(
            #[doc = concat!("`sql/", $file, "`")]
            pub const $name: &str = include_str!(concat!("../../sql/", $file));
        )*

        /// Each of them.
        pub const ALL: &[&str] = &[$($name),*];
    };
}

statements! {
    TOPICS_CREATE = "topics/create.sql";
    TOPICS_CREATE_WAITING = "topics/create_waiting.sql";
    TOPICS_LOCK = "topics/lock.sql";
    TOPICS_TRY_LOCK = "topics/try_lock.sql";
    TOPICS_HEADS = "topics/heads.sql";
    TOPICS_CHANNEL = "topics/channel.sql";
    TOPICS_WRITABLE = "topics/writable.sql";
    TOPICS_NOTIFY = "topics/notify.sql";
    TOPICS_NOTIFY_COMMITTED = "topics/notify_committed.sql";
    CHECK_BACKEND = "check/backend.sql";
    CHECK_CONNECTIONS = "check/connections.sql";
    CHECK_RIGHTS = "check/rights.sql";
    CHECK_SERVER = "check/server.sql";
    TOPICS_QUEUE_USAGE = "topics/queue_usage.sql";
    EVENTS_APPEND = "events/append.sql";
    EVENTS_TRIM = "events/trim.sql";
    EVENTS_TRIM_USERS = "events/trim_users.sql";
    EVENTS_FORGET_USER = "events/forget_user.sql";
    EVENTS_ERASE = "events/erase.sql";
    EVENTS_PAGES = "events/pages.sql";
    EVENTS_OUTCOME = "events/outcome.sql";
    FLAGS_PUT = "flags/put.sql";
    FLAGS_ERASE = "flags/erase.sql";
    FEED_LOCK = "feed/lock.sql";
    FEED_RELAY = "feed/relay.sql";
    FEED_PAGE = "feed/page.sql";
    FEED_IS_DUE = "feed/is_due.sql";
    FEED_UNDELIVERED = "feed/undelivered.sql";
    FEED_LAST_WAITING = "feed/last_waiting.sql";
    FEED_IS_WAITING = "feed/is_waiting.sql";
    FEED_WAITING = "feed/waiting.sql";
    FEED_LAG = "feed/lag.sql";
    FEED_TRIM = "feed/trim.sql";
    RIDES_BY_ID = "rides/by_id.sql";
    RIDES_PEOPLE = "rides/people.sql";
    RIDES_PUT = "rides/put.sql";
    RIDES_TRIMMED = "rides/trimmed.sql";
    RIDES_FORGET = "rides/forget.sql";
    RIDES_TO_CLOSE = "rides/to_close.sql";
    RIDES_DECIDE_CLOSING = "rides/decide_closing.sql";
    RIDES_PAGE = "rides/page.sql";
    RIDES_PAGE_OF_STATUS = "rides/page_of_status.sql";
    RIDES_PAGE_OF_USER = "rides/page_of_user.sql";
    RIDES_PLACE = "rides/place.sql";
    RIDES_INBOX = "rides/inbox.sql";
    MESSAGES_LAST_SEEN = "messages/last_seen.sql";
    PARTICIPANTS_GOING_ON = "participants/going_on.sql";
    PARTICIPANTS_LEFT_AS = "participants/left_as.sql";
    PARTICIPANTS_PUT = "participants/put.sql";
    PRESENCE_ENLIST = "presence/enlist.sql";
    PRESENCE_BEAT = "presence/beat.sql";
    PRESENCE_EXPIRE = "presence/expire.sql";
    PRESENCE_LAPSED = "presence/lapsed.sql";
    PRESENCE_DROP = "presence/drop.sql";
    PRESENCE_PREPARE = "presence/prepare.sql";
    PRESENCE_LOCK = "presence/lock.sql";
    PRESENCE_ARRIVE = "presence/arrive.sql";
    PRESENCE_DEPART = "presence/depart.sql";
    PRESENCE_SETTLE = "presence/settle.sql";
    PRESENCE_NEWER = "presence/newer.sql";
    DRIVERS_PUT = "drivers/put.sql";
    DRIVERS_WITHDRAW = "drivers/withdraw.sql";
    DRIVERS_UNATTENDED = "drivers/unattended.sql";
    DRIVERS_AVAILABLE = "drivers/available.sql";
    DRIVERS_NEWER = "drivers/newer.sql";
    PUSH_SUBSCRIPTIONS_PUT = "push_subscriptions/put.sql";
    PUSH_SUBSCRIPTIONS_DELETE = "push_subscriptions/delete.sql";
    PUSH_SUBSCRIPTIONS_REMOVE = "push_subscriptions/remove.sql";
    PUSH_SUBSCRIPTIONS_TRIM = "push_subscriptions/trim.sql";
    PUSHES_CLAIM = "pushes/claim.sql";
    PUSHES_NEXT = "pushes/next.sql";
    PUSHES_DONE = "pushes/done.sql";
    PUSHES_POSTPONE = "pushes/postpone.sql";
    RECEIPTS_PUT = "receipts/put.sql";
    LOCATIONS_PUT = "locations/put.sql";
    LOCATIONS_NEWER = "locations/newer.sql";
    MESSAGES_UPDATE = "messages/update.sql";
    MESSAGES_TRIM = "messages/trim.sql";
    MESSAGES_OF_SENDER = "messages/of_sender.sql";
    MESSAGES_BY_ID = "messages/by_id.sql";
    MESSAGES_BY_CLIENT_ID = "messages/by_client_id.sql";
    MESSAGES_PAGE_BEFORE = "messages/page_before.sql";
    MESSAGES_PAGE_AFTER = "messages/page_after.sql";
    MESSAGES_LAST_OF_OTHERS = "messages/last_of_others.sql";
    MESSAGES_UNREAD_OF_RIDE = "messages/unread_of_ride.sql";
    MESSAGES_UNREAD_OF_USER = "messages/unread_of_user.sql";
    RETENTION_LAG = "retention/lag.sql";
    RETENTION_LOCK = "retention/lock.sql";
    REVOCATIONS_PUT = "revocations/put.sql";
    REVOCATIONS_NEWER = "revocations/newer.sql";
    SECRETS_BY_NAME = "secrets/by_name.sql";
    SNAPSHOTS_LOAD = "snapshots/load.sql";
    WEBHOOKS_ACTIVE = "webhooks/active.sql";
    WEBHOOKS_BY_ID = "webhooks/by_id.sql";
    WEBHOOKS_CLAIM = "webhooks/claim.sql";
    WEBHOOKS_CREATE = "webhooks/create.sql";
    WEBHOOKS_DELETE = "webhooks/delete.sql";
    WEBHOOKS_DELIVERIES = "webhooks/deliveries.sql";
    WEBHOOKS_DELIVERIES_IN_STATE = "webhooks/deliveries_in_state.sql";
    WEBHOOKS_DISABLE = "webhooks/disable.sql";
    WEBHOOKS_FAILING = "webhooks/failing.sql";
    WEBHOOKS_FAN_OUT = "webhooks/fan_out.sql";
    WEBHOOKS_FINISH = "webhooks/finish.sql";
    WEBHOOKS_LIST = "webhooks/list.sql";
    WEBHOOKS_LOCK = "webhooks/lock.sql";
    WEBHOOKS_NEXT = "webhooks/next.sql";
    WEBHOOKS_OLDEST = "webhooks/oldest.sql";
    WEBHOOKS_RELEASE = "webhooks/release.sql";
    WEBHOOKS_REPLAY = "webhooks/replay.sql";
    WEBHOOKS_RETRY_NOW = "webhooks/retry_now.sql";
    WEBHOOKS_ROTATE = "webhooks/rotate.sql";
    WEBHOOKS_TRIM = "webhooks/trim.sql";
    WEBHOOKS_TRIM_DELETED = "webhooks/trim_deleted.sql";
    WEBHOOKS_TRIM_DELETED_DELIVERIES = "webhooks/trim_deleted_deliveries.sql";
    WEBHOOKS_TRIM_DELETED_QUEUES = "webhooks/trim_deleted_queues.sql";
    WEBHOOKS_TRIM_QUEUES = "webhooks/trim_queues.sql";
    WEBHOOKS_UPDATE = "webhooks/update.sql";
}
