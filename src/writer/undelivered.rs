//! Appends `message:undelivered` to the feed for messages that have not been delivered in time, so that the platform can send a push.
//!
//! The feed itself is the queue: each of its events is checked once, when it is old enough. So there is no row per message. The
//! position is in `feed_cursors`, so any replica continues where another one stopped. The checking statement reads the delivered
//! watermark itself, so a message that was delivered before it was due causes no event. At most one event about a user and ride is
//! appended until the user's watermark moves. The moved watermark is an event of the feed too (`message:delivered` or `message:read`).
//! When that event is checked, the messages after the watermark are checked again.
//!
//! Every replica polls. One at a time checks, under the lock of the feed's head.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::domain::Seq;
use crate::store::{FeedStep, Store, StoreError};

/// The maximum number of feed events in one step.
const PAGE: i64 = 500;

/// The time between two polls by one replica, jittered.
const PERIOD: Duration = Duration::from_millis(500);

/// Finds messages that are still undelivered `age` after they were sent, forever. `on_appended` receives the feed's head after each
/// step that has appended events.
pub async fn run(store: Arc<Store>, age: Duration, on_appended: impl Fn(Seq)) {
    loop {
        sleep(PERIOD.mul_f64(0.5 + fastrand::f64())).await;
        if let Err(error) = check_due(&store, age, &on_appended).await {
            tracing::debug!(%error, "undelivered check failed");
        }
    }
}

/// Checks events until none is due, or another replica holds the lock.
async fn check_due(store: &Store, age: Duration, on_appended: &impl Fn(Seq)) -> Result<(), StoreError> {
    while store.has_unchecked_older_than(age).await? {
        match store.find_undelivered(age, PAGE).await? {
            FeedStep::Appended { last, .. } => on_appended(last),
            FeedStep::Advanced => {}
            FeedStep::Nothing | FeedStep::Busy => break,
        }
    }
    Ok(())
}
