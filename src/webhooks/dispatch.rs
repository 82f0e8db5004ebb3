//! Takes queues that are due, and has a worker attempt the deliveries of each.
//!
//! An endpoint has at most so many queues at once as an eighth of what is free in all. So endpoints that do not answer leave the
//! others room, however many they are: each further one gets less.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Webhooks;
use super::worker::{self, Observe};
use crate::store::{Lease, StoreError};
use crate::web::leased::Leased;

/// The most queues at once, in all; besides one for each endpoint, which it has in any case.
const IN_ALL: usize = 1_000;

/// The most queues of one endpoint.
const OF_WEBHOOK: usize = 64;

/// The time from one look to the next, at least.
const GATHERING: Duration = Duration::from_millis(5);

/// Retries that come later are found by looking.
const REMEMBERED: Duration = Duration::from_secs(60);

/// How long attempts have to end when the server stops.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// The queues that this replica has.
struct Held {
    queues: Leased<Lease, Option<Duration>>,
    /// When retries of this replica are due.
    retries: BinaryHeap<Reverse<Instant>>,
}

impl Held {
    /// How many more queues each endpoint may have now.
    fn slots(&self, active: Vec<String>) -> Vec<(String, i64)> {
        let free = IN_ALL.saturating_sub(self.queues.len());
        let most = (free / 8).clamp(1, OF_WEBHOOK);
        let at_once = (free / active.len().max(1)).clamp(1, OF_WEBHOOK);
        let slots = active.into_iter().filter_map(|webhook| {
            let held = self.queues.by_receiver().get(&webhook).copied().unwrap_or_default();
            let slots = most.saturating_sub(held).min(at_once);
            i64::try_from(slots).ok().filter(|slots| *slots > 0).map(|slots| (webhook, slots))
        });
        slots.collect()
    }

    /// Waits for a worker's end; for ever where there is none.
    async fn ended(&mut self) {
        let retry = self.queues.ended().await.flatten();
        if let Some(delay) = retry.filter(|delay| *delay <= REMEMBERED) {
            self.retries.push(Reverse(Instant::now() + delay));
        }
    }

    /// When the next retry of this replica is due.
    fn next_retry(&self) -> Option<Instant> {
        self.retries.peek().map(|Reverse(at)| *at)
    }
}

/// Delivers until `stopping`, and gives the queues back then.
pub(super) async fn run(webhooks: &Arc<Webhooks>, stopping: &CancellationToken, observe: Arc<Observe>) {
    let mut held = Held { queues: Leased::new(|lease| &lease.webhook), retries: BinaryHeap::new() };
    // Whether more queues may be due than there was room for.
    let mut has_more = false;
    loop {
        let poll = Instant::now() + webhooks.period.mul_f64(0.8 + 0.4 * fastrand::f64());
        let next = held.next_retry().map_or(poll, |retry| retry.min(poll));
        let is_woken = tokio::select! {
            biased;
            () = stopping.cancelled() => break,
            () = webhooks.due.notified() => true,
            () = sleep_until(next) => true,
            () = held.ended() => has_more,
        };
        if !is_woken {
            continue;
        }
        while held.next_retry().is_some_and(|at| at <= Instant::now()) {
            held.retries.pop();
        }
        let began = Instant::now();
        match claim(webhooks, &mut held, stopping, &observe).await {
            Ok(more) => {
                has_more = more;
                // Another look at once, if there is room.
                if more && !held.slots(webhooks.active()).is_empty() {
                    webhooks.due.notify_one();
                }
            }
            Err(error) => tracing::debug!(%error, "webhook deliveries cannot be taken now"),
        }
        // Looking never takes more than half of the time.
        sleep(began.elapsed().max(GATHERING)).await;
    }
    let leases = held.queues.stop(STOP_PATIENCE).await.collect();
    if let Err(error) = webhooks.store.release_queues(leases, Duration::ZERO).await {
        tracing::debug!(%error, "webhook deliveries cannot be given back; their leases expire");
    }
}

/// Takes queues. Returns whether there may be more.
async fn claim(
    webhooks: &Arc<Webhooks>,
    held: &mut Held,
    stopping: &CancellationToken,
    observe: &Arc<Observe>,
) -> Result<bool, StoreError> {
    let slots = held.slots(webhooks.active());
    if slots.is_empty() {
        return Ok(true);
    }
    let claimed = webhooks.store.claim_queues(&slots).await?;
    let mut taken: HashMap<String, i64> = HashMap::new();
    for lease in claimed {
        *taken.entry(lease.webhook.clone()).or_default() += 1;
        let (webhooks, stopping, observe) = (Arc::clone(webhooks), stopping.clone(), Arc::clone(observe));
        let worked = lease.clone();
        held.queues.begin(lease, async move { worker::work(&webhooks, &worked, &stopping, &*observe).await });
    }
    Ok(slots.iter().any(|(webhook, slots)| taken.get(webhook).is_some_and(|taken| taken >= slots)))
}
