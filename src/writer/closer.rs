//! Closes rides whose chat window has passed.
//!
//! A clock passing a moment is no request, so somebody has to look: every replica does, and whoever is first closes
//! the ride by a command like any other. When a ride is to be closed was decided and stored when it ended, so neither the
//! settings nor the clock of the replica that looks matter. Its people are told on their own topics (`ride:closed`); streams
//! of the ride itself know the moment beforehand, and look then whether the ride is closed.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;

use super::{CloseRide, Writer};
use crate::store::Store;

/// How long to wait between two looks; jittered, so that replicas take turns.
const PAUSE_MS: std::ops::Range<u64> = 500..1_500;

/// The most rides of one look.
const PAGE: i64 = 200;

/// Looks, for ever.
///
/// `grace` is for rides that a version before has ended, which did not decide when they close.
pub async fn run(writer: Writer, store: Arc<Store>, grace: Duration) {
    loop {
        if let Err(error) = store.decide_closing(grace, PAGE).await {
            tracing::debug!(%error, "when rides close cannot be decided now");
        }
        let rides = store.rides_to_close(PAGE).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "the rides to be closed cannot be read now");
            Vec::new()
        });
        let closed = join_all(rides.into_iter().map(|ride| writer.submit(CloseRide { ride }))).await;
        if let Some(error) = closed.into_iter().find_map(Result::err) {
            tracing::debug!(%error, "a ride could not be closed now");
        }
        sleep(Duration::from_millis(fastrand::u64(PAUSE_MS))).await;
    }
}
