//! Creates the deliveries of new events.

use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::Webhooks;
use crate::store::StoreError;

/// The most endpoints in one transaction.
const MAX_WEBHOOKS: usize = 200;

/// The most feed positions that one transaction reads, over all its endpoints.
const MAX_POSITIONS: usize = 2_000;

/// The least time between two runs. After a longer pause a run starts at once.
const MIN_INTERVAL: Duration = Duration::from_millis(5);

/// How long to wait while other replicas hold the locks of the endpoints; jittered.
const BUSY_MS: std::ops::Range<u64> = 5..20;

/// How long to wait after an error; jittered.
const ERROR_MS: std::ops::Range<u64> = 200..1_000;

/// The result of one step.
enum StepResult {
    /// No endpoint is behind the feed.
    UpToDate,
    /// The position of some endpoints was advanced.
    Advanced,
    /// Other replicas hold the locks of all endpoints that are behind.
    Locked,
}

/// Creates deliveries, on each wake-up and about once a period. Never returns.
pub(super) async fn run(webhooks: &Webhooks) {
    loop {
        let next = Instant::now() + MIN_INTERVAL;
        loop {
            let pause = match step(webhooks).await {
                Ok(StepResult::Advanced) => {
                    webhooks.due.notify_one();
                    continue;
                }
                Ok(StepResult::UpToDate) => break,
                // The other replica's snapshot may be older than this wake-up, so repeat until no endpoint is behind.
                Ok(StepResult::Locked) => BUSY_MS,
                Err(error) => {
                    tracing::debug!(%error, "creation of webhook deliveries failed");
                    ERROR_MS
                }
            };
            sleep(Duration::from_millis(fastrand::u64(pause))).await;
        }
        sleep_until(next).await;
        tokio::select! {
            () = webhooks.events.notified() => {}
            () = sleep(webhooks.period.mul_f64(0.8 + 0.4 * fastrand::f64())) => {}
        }
    }
}

async fn step(webhooks: &Webhooks) -> Result<StepResult, StoreError> {
    let active = webhooks.store.active_webhooks().await?;
    let behind: Vec<String> = active.iter().filter(|(_, is_behind)| *is_behind).map(|(id, _)| id.clone()).collect();
    let active: Vec<String> = active.into_iter().map(|(id, _)| id).collect();
    let has_changed =
        std::mem::replace(&mut *webhooks.active.lock().unwrap_or_else(PoisonError::into_inner), active.clone())
            != active;
    // An endpoint that became active again may have due deliveries.
    if has_changed {
        webhooks.due.notify_one();
    }
    if behind.is_empty() {
        return Ok(StepResult::UpToDate);
    }
    let mut result = StepResult::Locked;
    for part in behind.chunks(MAX_WEBHOOKS) {
        let positions = i64::try_from(MAX_POSITIONS / part.len()).unwrap_or(i64::MAX);
        for advanced in webhooks.store.fan_out(part, positions).await? {
            result = StepResult::Advanced;
            if advanced.missed > 0 {
                let (webhook, events) = (advanced.webhook, advanced.missed);
                tracing::warn!(
                    webhook.id = webhook,
                    events,
                    "webhook missed events, which expired while it was not active"
                );
            }
        }
    }
    Ok(result)
}
