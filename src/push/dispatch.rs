//! Takes pushes that are due, and has a worker send each.
//!
//! A push service has at most so many requests at once as an eighth of what is free in all. So one that does not answer leaves the
//! others room, and further ones get less each.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::WebPush;
use super::worker::{self, Observe};
use crate::store::{PushLease, StoreError};

/// The most requests at once.
const IN_ALL: usize = 256;

/// The most requests of one push service.
const OF_SERVICE: usize = 32;

/// The time from one look to the next, at least.
const GATHERING: Duration = Duration::from_millis(5);

/// How long requests have to end when the server stops.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// The pushes that this replica has.
#[derive(Default)]
struct Held {
    workers: JoinSet<()>,
    leases: HashMap<Id, PushLease>,
    of_service: HashMap<String, i64>,
}

impl Held {
    fn free(&self) -> usize {
        IN_ALL.saturating_sub(self.leases.len())
    }

    fn begin(&mut self, lease: PushLease, worker: impl Future<Output = ()> + Send + 'static) {
        *self.of_service.entry(lease.host.clone()).or_default() += 1;
        let id = self.workers.spawn(worker).id();
        self.leases.insert(id, lease);
    }

    /// Waits for a worker's end; for ever where there is none.
    async fn ended(&mut self) {
        let id = match self.workers.join_next_with_id().await {
            Some(Ok((id, ()))) => id,
            Some(Err(error)) => error.id(),
            None => return std::future::pending().await,
        };
        if let Some(lease) = self.leases.remove(&id)
            && let Some(held) = self.of_service.get_mut(&lease.host)
        {
            *held -= 1;
            if *held == 0 {
                self.of_service.remove(&lease.host);
            }
        }
    }
}

/// Sends pushes until `stopping`, and gives back what it has then.
pub(super) async fn run(push: &Arc<WebPush>, stopping: &CancellationToken, observe: Arc<Observe>) {
    let mut held = Held::default();
    // Whether more pushes may be due than there was room for.
    let mut has_more = false;
    let mut next = Instant::now() + push.period.mul_f64(fastrand::f64());
    loop {
        let is_woken = tokio::select! {
            biased;
            () = stopping.cancelled() => break,
            () = push.due.notified() => true,
            () = sleep_until(next) => true,
            () = held.ended() => has_more,
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
    drop(timeout(STOP_PATIENCE, async { while held.workers.join_next().await.is_some() {} }).await);
    held.workers.shutdown().await;
    // Of those that have ended nothing is left to be given back.
    for lease in held.leases.into_values() {
        if let Err(error) = push.store.postpone_push(&lease, Duration::ZERO, 0).await {
            tracing::debug!(%error, "pushes cannot be given back; their leases expire");
            break;
        }
    }
}

/// Takes pushes. Returns whether there may be more.
async fn claim(push: &Arc<WebPush>, held: &mut Held, observe: &Arc<Observe>) -> Result<bool, StoreError> {
    let free = held.free();
    if free == 0 {
        return Ok(true);
    }
    let of_service = (free / 8).clamp(1, OF_SERVICE);
    let counts: Vec<_> = held.of_service.iter().map(|(host, count)| (host.clone(), *count)).collect();
    let limit = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let claimed = push.store.claim_pushes(&counts, limit(of_service), limit(free)).await?;
    for lease in claimed {
        let (push, observe, worked) = (Arc::clone(push), Arc::clone(observe), lease.clone());
        held.begin(lease, async move { worker::work(&push, &worked, &*observe).await });
    }
    let is_full = held.free() == 0 || held.of_service.values().any(|count| *count >= limit(of_service));
    Ok(is_full)
}
