//! Claims queues that are due, and starts a worker for each.
//!
//! An endpoint gets at most an eighth of the free workers. So endpoints that do not respond leave workers for the others,
//! however many they are: each further endpoint gets a smaller share.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Webhooks;
use super::worker::{self, OnOutcome};
use crate::store::{Lease, StoreError};
use crate::web::worker_pool::WorkerPool;

/// The most workers of this replica. Beyond it each endpoint still gets one worker.
const MAX_WORKERS: usize = 1_000;

/// The most workers of one endpoint.
const MAX_WORKERS_PER_WEBHOOK: usize = 64;

/// The least time between two claims.
const MIN_INTERVAL: Duration = Duration::from_millis(5);

/// Retries due within this time get a timer. The poll finds later ones.
const MAX_TIMER: Duration = Duration::from_secs(60);

/// How long attempts have to finish when the server stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// The queues that this replica has claimed.
struct ClaimedQueues {
    workers: WorkerPool<Lease, Option<Duration>>,
    /// The due times of this replica's retries, earliest first.
    retries: BinaryHeap<Reverse<Instant>>,
}

impl ClaimedQueues {
    /// Returns how many more queues may be claimed now, for each endpoint with room for at least one.
    fn slots(&self, active: Vec<String>) -> Vec<(String, i64)> {
        let free = MAX_WORKERS.saturating_sub(self.workers.len());
        let most = (free / 8).clamp(1, MAX_WORKERS_PER_WEBHOOK);
        let at_once = (free / active.len().max(1)).clamp(1, MAX_WORKERS_PER_WEBHOOK);
        let slots = active.into_iter().filter_map(|webhook| {
            let used = self.workers.active_by_key().get(&webhook).copied().unwrap_or_default();
            let slots = most.saturating_sub(used).min(at_once);
            i64::try_from(slots).ok().filter(|slots| *slots > 0).map(|slots| (webhook, slots))
        });
        slots.collect()
    }

    /// Waits until a worker ends, and sets the timer of its retry. Never returns while there are no workers. Cancel safe.
    async fn join_next(&mut self) {
        let retry = self.workers.join_next().await.flatten();
        if let Some(delay) = retry.filter(|delay| *delay <= MAX_TIMER) {
            self.retries.push(Reverse(Instant::now() + delay));
        }
    }

    /// The due time of this replica's next retry.
    fn next_retry(&self) -> Option<Instant> {
        self.retries.peek().map(|Reverse(at)| *at)
    }
}

/// Dispatches until `stopping` is cancelled, then releases the claimed queues.
pub(super) async fn run(webhooks: &Arc<Webhooks>, stopping: &CancellationToken, on_outcome: Arc<OnOutcome>) {
    let mut claimed = ClaimedQueues { workers: WorkerPool::new(|lease| &lease.webhook), retries: BinaryHeap::new() };
    // Whether due queues may have been left, for lack of free workers.
    let mut has_more = false;
    loop {
        let poll = Instant::now() + webhooks.period.mul_f64(0.8 + 0.4 * fastrand::f64());
        let next = claimed.next_retry().map_or(poll, |retry| retry.min(poll));
        let should_claim = tokio::select! {
            biased;
            () = stopping.cancelled() => break,
            () = webhooks.due.notified() => true,
            () = sleep_until(next) => true,
            () = claimed.join_next() => has_more,
        };
        if !should_claim {
            continue;
        }
        while claimed.next_retry().is_some_and(|at| at <= Instant::now()) {
            claimed.retries.pop();
        }
        let started = Instant::now();
        match claim(webhooks, &mut claimed, stopping, &on_outcome).await {
            Ok(more) => {
                has_more = more;
                // Claim again at once if workers are free.
                if more && !claimed.slots(webhooks.active()).is_empty() {
                    webhooks.due.notify_one();
                }
            }
            Err(error) => tracing::debug!(%error, "claim of webhook deliveries failed"),
        }
        // Claims take at most half of the time.
        sleep(started.elapsed().max(MIN_INTERVAL)).await;
    }
    let leases = claimed.workers.stop(SHUTDOWN_TIMEOUT).await.collect();
    if let Err(error) = webhooks.store.release_queues(leases, Duration::ZERO).await {
        tracing::debug!(%error, "release of webhook deliveries failed; their leases expire");
    }
}

/// Claims queues, and starts their workers. Returns whether more queues may be due.
async fn claim(
    webhooks: &Arc<Webhooks>,
    claimed: &mut ClaimedQueues,
    stopping: &CancellationToken,
    on_outcome: &Arc<OnOutcome>,
) -> Result<bool, StoreError> {
    let slots = claimed.slots(webhooks.active());
    if slots.is_empty() {
        return Ok(true);
    }
    let leases = webhooks.store.claim_queues(&slots).await?;
    let mut counts: HashMap<String, i64> = HashMap::new();
    for lease in leases {
        *counts.entry(lease.webhook.clone()).or_default() += 1;
        let (webhooks, stopping, on_outcome) = (Arc::clone(webhooks), stopping.clone(), Arc::clone(on_outcome));
        let worker_lease = lease.clone();
        claimed
            .workers
            .spawn(lease, async move { worker::run(&webhooks, &worker_lease, &stopping, &*on_outcome).await });
    }
    Ok(slots.iter().any(|(webhook, slots)| counts.get(webhook).is_some_and(|count| count >= slots)))
}
