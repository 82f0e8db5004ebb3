//! Takes pushes that are due, and has a worker send each.
//!
//! A push service has at most so many requests at once as an eighth of what is free in all. So one that does not answer leaves the
//! others room, and further ones get less each.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::WebPush;
use super::worker::{self, Observe};
use crate::store::{PushLease, StoreError};
use crate::web::leased::Leased;

/// The most requests at once.
const IN_ALL: usize = 256;

/// The most requests of one push service.
const OF_SERVICE: usize = 32;

/// The time from one look to the next, at least.
const GATHERING: Duration = Duration::from_millis(5);

/// How long requests have to end when the server stops.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Sends pushes until `stopping`, and gives back what it has then.
pub(super) async fn run(push: &Arc<WebPush>, stopping: &CancellationToken, observe: Arc<Observe>) {
    let mut held = Leased::new(|lease: &PushLease| &lease.host);
    // Whether more pushes may be due than there was room for.
    let mut has_more = false;
    let mut next = Instant::now() + push.period.mul_f64(fastrand::f64());
    loop {
        let is_woken = tokio::select! {
            biased;
            () = stopping.cancelled() => break,
            () = push.due.notified() => true,
            () = sleep_until(next) => true,
            _ = held.ended() => has_more,
        };
        if !is_woken {
            continue;
        }
        let began = Instant::now();
        match claim(push, &mut held, &observe).await {
            Ok(more) => has_more = more,
            Err(error) => tracing::debug!(%error, "pushes cannot be taken now"),
        }
        // Looking never takes more than half of the time.
        sleep(began.elapsed().max(GATHERING)).await;
        next = Instant::now() + push.period.mul_f64(0.8 + 0.4 * fastrand::f64());
    }
    for lease in held.stop(STOP_PATIENCE).await {
        if let Err(error) = push.store.postpone_push(&lease, Duration::ZERO, 0).await {
            tracing::debug!(%error, "pushes cannot be given back; their leases expire");
            break;
        }
    }
}

/// Takes pushes. Returns whether there may be more.
async fn claim(
    push: &Arc<WebPush>,
    held: &mut Leased<PushLease, ()>,
    observe: &Arc<Observe>,
) -> Result<bool, StoreError> {
    let free = IN_ALL.saturating_sub(held.len());
    if free == 0 {
        return Ok(true);
    }
    let of_service = (free / 8).clamp(1, OF_SERVICE);
    let limit = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let counts: Vec<_> = held.by_receiver().iter().map(|(host, count)| (host.clone(), limit(*count))).collect();
    let claimed = push.store.claim_pushes(&counts, limit(of_service), limit(free)).await?;
    for lease in claimed {
        let (push, observe, worked) = (Arc::clone(push), Arc::clone(observe), lease.clone());
        held.begin(lease, async move { worker::work(&push, &worked, &*observe).await });
    }
    Ok(held.len() >= IN_ALL || held.by_receiver().values().any(|count| *count >= of_service))
}
