//! Workers that send to others, each under a lease in the database, counted by whom they send to.

use std::collections::HashMap;
use std::time::Duration;

use tokio::task::{Id, JoinSet};
use tokio::time::timeout;

/// The workers of this replica. A worker returns a `T`; `L` is its lease.
#[derive(Debug)]
pub(crate) struct Leased<L, T> {
    workers: JoinSet<T>,
    leases: HashMap<Id, L>,
    by_receiver: HashMap<String, usize>,
    receiver: fn(&L) -> &String,
}

impl<L, T: Send + 'static> Leased<L, T> {
    /// No workers; `receiver` is whom a lease's worker sends to.
    pub(crate) fn new(receiver: fn(&L) -> &String) -> Self {
        Self { workers: JoinSet::new(), leases: HashMap::new(), by_receiver: HashMap::new(), receiver }
    }

    /// The number of workers.
    pub(crate) fn len(&self) -> usize {
        self.leases.len()
    }

    /// The number of workers of each receiver that has one.
    pub(crate) fn by_receiver(&self) -> &HashMap<String, usize> {
        &self.by_receiver
    }

    /// Starts a worker.
    pub(crate) fn begin(&mut self, lease: L, worker: impl Future<Output = T> + Send + 'static) {
        *self.by_receiver.entry((self.receiver)(&lease).clone()).or_default() += 1;
        let id = self.workers.spawn(worker).id();
        self.leases.insert(id, lease);
    }

    /// Waits for a worker's end, and returns what it returns, unless it has panicked; waits for ever where there is none. Dropping the
    /// future loses nothing.
    pub(crate) async fn ended(&mut self) -> Option<T> {
        let (id, returned) = match self.workers.join_next_with_id().await {
            Some(Ok((id, returned))) => (id, Some(returned)),
            Some(Err(error)) => (error.id(), None),
            None => return std::future::pending().await,
        };
        if let Some(lease) = self.leases.remove(&id) {
            let receiver = (self.receiver)(&lease);
            if let Some(count) = self.by_receiver.get_mut(receiver) {
                *count -= 1;
                if *count == 0 {
                    self.by_receiver.remove(receiver);
                }
            }
        }
        returned
    }

    /// Gives the workers this long to end, and aborts the others. Returns the leases: of a worker that has ended meanwhile nothing is left
    /// to be given back.
    pub(crate) async fn stop(mut self, patience: Duration) -> impl Iterator<Item = L> {
        drop(timeout(patience, async { while self.workers.join_next().await.is_some() {} }).await);
        self.workers.shutdown().await;
        self.leases.into_values()
    }
}
