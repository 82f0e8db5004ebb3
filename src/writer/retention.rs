//! Takes away what retention no longer keeps: logs some days after their ride's end, messages some time later.
//!
//! Every replica looks, one works at a time. A reader whose cursor lies in what was taken is told so (`gap`).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::store::{Retention, Store};

/// Between two batches: what else wants the database goes first.
const BREATH: Duration = Duration::from_millis(100);

/// Looks every `period` or so, for ever, and works as long as there is something to take.
pub async fn run(store: Arc<Store>, retention: Retention, period: Duration) {
    loop {
        sleep(period.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
        let mut taken = 0;
        loop {
            match store.trim(retention).await {
                Ok(0) => break,
                Ok(rows) => taken += rows,
                Err(error) => {
                    tracing::warn!(%error, "what is old cannot be taken away now");
                    break;
                }
            }
            sleep(BREATH).await;
        }
        if taken > 0 {
            tracing::info!(rows = taken, "took away what was older than retention keeps");
        }
    }
}
