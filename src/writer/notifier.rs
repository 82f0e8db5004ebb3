//! Tells the other replicas what is told without being logged, and where logs end after a large commit. (A small one tells
//! that itself, and sooner.)
//!
//! After one NOTIFY, what comes in the next few milliseconds gathers by whose it is: each is a transaction here, and makes every
//! replica read. So the queue is never longer than what has changed since. What is lost here is found by the others at their
//! next look.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::domain::{Signal, SignalKind, Topic, UserId};
use crate::store::Store;
use crate::store::hints::{self, Heads, Hints};

/// The time from one NOTIFY to the next. What is told after a pause is told at once.
const GATHERING: Duration = Duration::from_millis(5);

/// What has not been told yet.
#[derive(Debug)]
pub struct Notifier {
    waiting: Mutex<Waiting>,
    more: Notify,
    is_on: bool,
}

#[derive(Debug, Default)]
struct Waiting {
    /// The last value of each.
    values: HashMap<(Topic, SignalKind, UserId), Signal>,
    heads: Heads,
    revoked: bool,
}

impl Notifier {
    /// A notifier; one that is off tells nothing and keeps nothing.
    pub fn new(is_on: bool) -> Self {
        Self { waiting: Mutex::default(), more: Notify::new(), is_on }
    }

    /// Whether the other replicas are told at all.
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // A std lock: held for a few insertions, never across an await.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a value that is told and not logged.
    pub fn tell(&self, signal: Signal) {
        let Some(kind) = signal.kind.signal().filter(|_| self.is_on) else { return };
        let key = (signal.topic.clone(), kind, signal.user.clone());
        let mut waiting = self.waiting();
        if waiting.values.get(&key).is_none_or(|known| known.version < signal.version) {
            waiting.values.insert(key, signal);
        }
        drop(waiting);
        self.more.notify_one();
    }

    /// Notes where logs end, which only grow.
    pub fn tell_heads(&self, heads: Heads) {
        if self.is_on && !heads.is_empty() {
            let mut waiting = self.waiting();
            for (topic, seq) in heads {
                let known = waiting.heads.entry(topic).or_insert(seq);
                *known = seq.max(*known);
            }
            drop(waiting);
            self.more.notify_one();
        }
    }

    /// Notes that a user's logins were revoked.
    pub fn tell_revoked(&self) {
        if self.is_on {
            self.waiting().revoked = true;
            self.more.notify_one();
        }
    }

    /// Tells, for ever.
    pub async fn run(&self, store: Arc<Store>) {
        loop {
            self.more.notified().await;
            let next = Instant::now() + GATHERING;
            self.tell_all(&store).await;
            sleep_until(next).await;
        }
    }

    /// Tells what waits.
    pub async fn tell_all(&self, store: &Store) {
        let Waiting { values, heads, revoked } = std::mem::take(&mut *self.waiting());
        let values = values.into_values().collect();
        let payloads = hints::encode(&Hints { heads, values, revoked }, &store.origin);
        if payloads.is_empty() {
            return;
        }
        if let Err(error) = store.notify(&payloads).await {
            tracing::debug!(%error, "hints were lost; the other replicas will look by themselves");
        }
    }
}
