//! Creates the deliveries of new events.

use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::Webhooks;
use crate::store::StoreError;

/// The most endpoints of one transaction.
const WEBHOOKS: usize = 200;

/// The most positions of the feed that one transaction reads, over all its endpoints.
const POSITIONS: usize = 2_000;

/// The time from one step to the next. What comes after a pause is done at once.
const GATHERING: Duration = Duration::from_millis(5);

/// How long to wait for another replica that has the endpoints; jittered.
const BUSY_MS: std::ops::Range<u64> = 5..20;

/// How long to wait after an error; jittered.
const ERROR_MS: std::ops::Range<u64> = 200..1_000;

/// What one step has done.
enum Stepped {
    /// No endpoint is behind the feed.
    UpToDate,
    /// Some endpoints were moved.
    Moved,
    /// Another replica is at all of them.
    Busy,
}

/// Creates deliveries, for ever: when woken, and every period or so.
pub(super) async fn run(webhooks: &Webhooks) {
    loop {
        let next = Instant::now() + GATHERING;
        loop {
            let pause = match step(webhooks).await {
                Ok(Stepped::Moved) => {
                    webhooks.due.notify_one();
                    continue;
                }
                Ok(Stepped::UpToDate) => break,
                // Its snapshot may be older than what this replica was woken for: look again until nothing is behind.
                Ok(Stepped::Busy) => BUSY_MS,
                Err(error) => {
                    tracing::debug!(%error, "webhook deliveries cannot be created now");
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

async fn step(webhooks: &Webhooks) -> Result<Stepped, StoreError> {
    let active = webhooks.store.active_webhooks().await?;
    let behind: Vec<String> = active.iter().filter(|(_, is_behind)| *is_behind).map(|(id, _)| id.clone()).collect();
    let active: Vec<String> = active.into_iter().map(|(id, _)| id).collect();
    let has_changed =
        std::mem::replace(&mut *webhooks.active.lock().unwrap_or_else(PoisonError::into_inner), active.clone())
            != active;
    // An endpoint that is active again may have deliveries that are due.
    if has_changed {
        webhooks.due.notify_one();
    }
    if behind.is_empty() {
        return Ok(Stepped::UpToDate);
    }
    let mut stepped = Stepped::Busy;
    for part in behind.chunks(WEBHOOKS) {
        let positions = i64::try_from(POSITIONS / part.len()).unwrap_or(i64::MAX);
        for moved in webhooks.store.fan_out(part, positions).await? {
            stepped = Stepped::Moved;
            if moved.missed > 0 {
                let (webhook, events) = (moved.webhook, moved.missed);
                tracing::warn!(webhook.id = webhook, events, "events expired before a webhook was active again");
            }
        }
    }
    Ok(stepped)
}
