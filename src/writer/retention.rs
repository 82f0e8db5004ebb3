//! Deletes expired data: ride logs some days after their ride's end, messages some time later.
//!
//! Every replica polls, and one at a time works. A reader whose cursor is in a deleted part of the log receives a `gap`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::store::{Retention, Store};

/// The pause between two batches, so that other requests to the database go first.
const BATCH_PAUSE: Duration = Duration::from_millis(100);

/// Deletes expired data about every `period`, forever. Continues as long as there is something to delete.
pub async fn run(store: Arc<Store>, retention: Retention, period: Duration) {
    loop {
        sleep(period.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
        let mut deleted = 0;
        loop {
            match store.trim(retention).await {
                Ok(0) => break,
                Ok(rows) => deleted += rows,
                Err(error) => {
                    tracing::warn!(%error, "deletion of expired data failed");
                    break;
                }
            }
            sleep(BATCH_PAUSE).await;
        }
        if deleted > 0 {
            tracing::info!(rows = deleted, "expired data deleted");
        }
    }
}
