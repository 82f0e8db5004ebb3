//! Notifies the other replicas of values that are not in the log, and of the heads of topics after a large commit. A small commit
//! notifies them itself, and sooner.
//!
//! After one NOTIFY, updates are combined for a few milliseconds, the latest per key. Each NOTIFY is a transaction here, and makes every
//! replica read. The queue is never longer than the number of keys that have changed since the last NOTIFY. If a notification is lost,
//! the other replicas find its changes at their next poll.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::domain::{StateKind, StateUpdate, Topic, UserId};
use crate::store::Store;
use crate::store::hints::{self, Heads, Hints};

/// The minimum time between two NOTIFYs. The first update after a pause is sent at once.
const MIN_INTERVAL: Duration = Duration::from_millis(5);

/// Collects updates, and sends them to the other replicas.
#[derive(Debug)]
pub struct Notifier {
    pending: Mutex<PendingUpdates>,
    changed: Notify,
    is_on: bool,
}

#[derive(Debug, Default)]
struct PendingUpdates {
    /// The latest value per key.
    values: HashMap<(Topic, StateKind, UserId), StateUpdate>,
    heads: Heads,
    revoked: bool,
}

impl Notifier {
    /// Creates a notifier. If `is_on` is false, it keeps and sends nothing.
    pub fn new(is_on: bool) -> Self {
        Self { pending: Mutex::default(), changed: Notify::new(), is_on }
    }

    /// Whether updates are sent to the other replicas.
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    fn pending(&self) -> MutexGuard<'_, PendingUpdates> {
        // A std lock: held for a few insertions, never across an await.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a value that is not in the log. It replaces an older version in the queue.
    pub fn notify(&self, update: StateUpdate) {
        let Some(kind) = update.kind.state_kind().filter(|_| self.is_on) else { return };
        let key = (update.topic.clone(), kind, update.user.clone());
        let mut pending = self.pending();
        if pending.values.get(&key).is_none_or(|queued| queued.version < update.version) {
            pending.values.insert(key, update);
        }
        drop(pending);
        self.changed.notify_one();
    }

    /// Queues the heads of topics, which only grow.
    pub fn notify_heads(&self, heads: Heads) {
        if self.is_on && !heads.is_empty() {
            let mut pending = self.pending();
            for (topic, seq) in heads {
                let head = pending.heads.entry(topic).or_insert(seq);
                *head = seq.max(*head);
            }
            drop(pending);
            self.changed.notify_one();
        }
    }

    /// Queues the notification that a user's tokens were revoked.
    pub fn notify_revoked(&self) {
        if self.is_on {
            self.pending().revoked = true;
            self.changed.notify_one();
        }
    }

    /// Sends queued updates, forever.
    pub async fn run(&self, store: Arc<Store>) {
        loop {
            self.changed.notified().await;
            let next = Instant::now() + MIN_INTERVAL;
            self.flush(&store).await;
            sleep_until(next).await;
        }
    }

    /// Sends the queued updates now. If this fails, they are lost.
    pub async fn flush(&self, store: &Store) {
        let PendingUpdates { values, heads, revoked } = std::mem::take(&mut *self.pending());
        let is_for_all = |update: &StateUpdate| update.kind.state_kind().is_some_and(StateKind::is_kept_everywhere);
        let (for_all, for_followers): (Vec<_>, Vec<_>) = values.into_values().partition(is_for_all);
        let payloads = hints::encode(&Hints { heads, values: for_all, revoked }, &store.origin);
        if payloads.is_empty() && for_followers.is_empty() {
            return;
        }
        if let Err(error) = store.notify(&payloads, &for_followers).await {
            tracing::debug!(%error, "hints lost; the other replicas will poll");
        }
    }
}
