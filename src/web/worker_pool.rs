//! A pool of worker tasks that send requests to other servers. Each worker holds a lease in the database.

use std::collections::HashMap;
use std::time::Duration;

use tokio::task::{Id, JoinSet};
use tokio::time::timeout;

/// The workers of this replica. A worker returns a `T`; `L` is its lease.
#[derive(Debug)]
pub(crate) struct WorkerPool<L, T> {
    workers: JoinSet<T>,
    leases: HashMap<Id, L>,
    active_by_key: HashMap<String, usize>,
    key: fn(&L) -> &String,
}

impl<L, T: Send + 'static> WorkerPool<L, T> {
    /// Creates an empty pool. `key` returns the destination of a lease's worker; the pool counts its workers by this key.
    pub(crate) fn new(key: fn(&L) -> &String) -> Self {
        Self { workers: JoinSet::new(), leases: HashMap::new(), active_by_key: HashMap::new(), key }
    }

    /// The number of workers.
    pub(crate) fn len(&self) -> usize {
        self.leases.len()
    }

    /// The number of workers by key. Keys without a worker are absent.
    pub(crate) fn active_by_key(&self) -> &HashMap<String, usize> {
        &self.active_by_key
    }

    /// Starts a worker for a lease.
    pub(crate) fn spawn(&mut self, lease: L, worker: impl Future<Output = T> + Send + 'static) {
        *self.active_by_key.entry((self.key)(&lease).clone()).or_default() += 1;
        let id = self.workers.spawn(worker).id();
        self.leases.insert(id, lease);
    }

    /// Waits until a worker ends, and returns its result; `None` if it panicked. Never returns while the pool is empty.
    ///
    /// Cancel safe: dropping the future loses no result.
    pub(crate) async fn join_next(&mut self) -> Option<T> {
        let (id, returned) = match self.workers.join_next_with_id().await {
            Some(Ok((id, returned))) => (id, Some(returned)),
            Some(Err(error)) => (error.id(), None),
            None => return std::future::pending().await,
        };
        if let Some(lease) = self.leases.remove(&id) {
            let key = (self.key)(&lease);
            if let Some(count) = self.active_by_key.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    self.active_by_key.remove(key);
                }
            }
        }
        returned
    }

    /// Waits up to `grace_period` for the workers to end, then aborts the rest. Returns the leases of all workers, for release.
    /// The release of a lease does nothing if its worker has already ended and released it.
    pub(crate) async fn stop(mut self, grace_period: Duration) -> impl Iterator<Item = L> {
        drop(timeout(grace_period, async { while self.workers.join_next().await.is_some() {} }).await);
        self.workers.shutdown().await;
        self.leases.into_values()
    }
}
