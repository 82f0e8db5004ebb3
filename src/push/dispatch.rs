//! Claims pushes that are due, and starts a worker for each.
//!
//! A push service gets at most an eighth of the free workers. So services that do not respond never occupy all
//! workers: each further service gets a smaller share of the rest.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::WebPush;
use super::worker::{self, OnOutcome};
use crate::store::{PushLease, StoreError};
use crate::web::worker_pool::WorkerPool;

/// The maximum number of workers of this replica.
const MAX_WORKERS: usize = 256;

/// The maximum number of workers of one push service.
const MAX_WORKERS_PER_SERVICE: usize = 32;

/// The minimum time between two claims.
const MIN_INTERVAL: Duration = Duration::from_millis(5);

/// How long requests have to finish when the server stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Dispatches until `stopping` is cancelled, then releases the claimed pushes.
pub(super) async fn run(push: &Arc<WebPush>, stopping: &CancellationToken, on_outcome: Arc<OnOutcome>) {
    let mut workers = WorkerPool::new(|lease: &PushLease| &lease.host);
    // Whether due pushes may have been left, for lack of free workers.
    let mut has_more = false;
    let mut next = Instant::now() + push.period.mul_f64(fastrand::f64());
    loop {
        let should_claim = tokio::select! {
            biased;
            () = stopping.cancelled() => break,
            () = push.due.notified() => true,
            () = sleep_until(next) => true,
            _ = workers.join_next() => has_more,
        };
        if !should_claim {
            continue;
        }
        let started = Instant::now();
        match claim(push, &mut workers, &on_outcome).await {
            Ok(more) => has_more = more,
            Err(error) => tracing::debug!(%error, "claim of pushes failed"),
        }
        // Waits as long as the claim took, so that claims take at most half of the time.
        sleep(started.elapsed().max(MIN_INTERVAL)).await;
        next = Instant::now() + push.period.mul_f64(0.8 + 0.4 * fastrand::f64());
    }
    for lease in workers.stop(SHUTDOWN_TIMEOUT).await {
        if let Err(error) = push.store.release_push(&lease).await {
            tracing::debug!(%error, "release of pushes failed; their leases expire");
            break;
        }
    }
}

/// Claims pushes, and starts their workers. Returns whether more pushes may be due.
async fn claim(
    push: &Arc<WebPush>,
    workers: &mut WorkerPool<PushLease, ()>,
    on_outcome: &Arc<OnOutcome>,
) -> Result<bool, StoreError> {
    let free = MAX_WORKERS.saturating_sub(workers.len());
    if free == 0 {
        return Ok(true);
    }
    let per_service = (free / 8).clamp(1, MAX_WORKERS_PER_SERVICE);
    let limit = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let counts: Vec<_> = workers.active_by_key().iter().map(|(host, count)| (host.clone(), limit(*count))).collect();
    let leases = push.store.claim_pushes(&counts, limit(per_service), limit(free)).await?;
    for lease in leases {
        let (push, on_outcome, worker_lease) = (Arc::clone(push), Arc::clone(on_outcome), lease.clone());
        workers.spawn(lease, async move { worker::run(&push, &worker_lease, &*on_outcome).await });
    }
    Ok(workers.len() >= MAX_WORKERS || workers.active_by_key().values().any(|count| *count >= per_service))
}
