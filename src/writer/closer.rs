//! Closes rides whose chat window has passed.
//!
//! No request arrives when a window passes, so every replica polls for such rides. The first one closes the ride, with a command like any
//! other. The closing time was decided and stored when the ride ended, so neither the settings nor the clock of the polling replica
//! matter. The participants are notified on their user topics (`ride:closed`). Streams of the ride know the closing time beforehand, and
//! then check whether the ride is closed.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;

use super::{CloseRide, Writer};
use crate::store::Store;

/// The time between two polls; jittered, so that replicas take turns.
const PAUSE_MS: std::ops::Range<u64> = 500..1_500;

/// The maximum number of rides in one poll.
const PAGE: i64 = 200;

/// Closes rides, forever.
///
/// `grace` is for rides that an older version has ended without a closing time.
pub async fn run(writer: Writer, store: Arc<Store>, grace: Duration) {
    loop {
        if let Err(error) = store.set_closing_times(grace, PAGE).await {
            tracing::debug!(%error, "setting of closing times failed");
        }
        let rides = store.rides_to_close(PAGE).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "query for rides to close failed");
            Vec::new()
        });
        let closed = join_all(rides.into_iter().map(|ride| writer.submit(CloseRide { ride }))).await;
        if let Some(error) = closed.into_iter().find_map(Result::err) {
            tracing::debug!(%error, "closing a ride failed");
        }
        sleep(Duration::from_millis(fastrand::u64(PAUSE_MS))).await;
    }
}
