//! Reports messages that have not been delivered in time as `message:undelivered` on the feed, so that the platform can send a push.
//!
//! The feed itself is the queue: each of its batches is checked once, when it is old enough. So there is no row per message. The
//! progress is in `feed_cursors`, so any replica continues where another one stopped. The checking statement reads the delivered
//! watermark itself, so a message that was delivered before it was due causes no report. At most one report about a user and ride is
//! made until the user's watermark moves. The moved watermark is an event of the feed too (`message:delivered` or `message:read`).
//! When its batch is checked, the messages after the watermark are checked again.
//!
//! Every replica polls. One at a time checks, under the lock of the progress. The relay is not delayed: it gives the reports their
//! positions later.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::store::{SearchStep, Store, StoreError};

/// The maximum number of the feed's batches in one step.
const BATCHES: i64 = 500;

/// The time between two polls by one replica, jittered.
const PERIOD: Duration = Duration::from_millis(500);

/// Finds messages that are still undelivered `age` after they were sent, forever. Calls `on_reports` when reports wait for the relay.
pub async fn run(store: Arc<Store>, age: Duration, on_reports: impl Fn()) {
    loop {
        sleep(PERIOD.mul_f64(0.5 + fastrand::f64())).await;
        if let Err(error) = check_due(&store, age, &on_reports).await {
            tracing::debug!(%error, "undelivered check failed");
        }
    }
}

/// Checks batches until none is due, or another replica holds the lock.
async fn check_due(store: &Store, age: Duration, on_reports: &impl Fn()) -> Result<(), StoreError> {
    while store.has_unchecked_older_than(age).await? {
        match store.find_undelivered(age, BATCHES).await? {
            SearchStep::Advanced { has_reports: true } => on_reports(),
            SearchStep::Advanced { has_reports: false } => {}
            SearchStep::Nothing | SearchStep::Busy => break,
        }
    }
    Ok(())
}
