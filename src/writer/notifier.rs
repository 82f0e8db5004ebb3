//! Tells the other replicas what is told without being logged. (Where logs end is told by whoever has committed.)
//!
//! While one NOTIFY runs, what comes meanwhile gathers by whose it is; so the queue is never longer than what has
//! changed since. A value that is lost here is found by the others at their next look.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::domain::{Signal, SignalKind, Topic, UserId};
use crate::store::Store;
use crate::store::hints::{self, Hints};

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
    revoked: bool,
}

impl Notifier {
    /// A notifier; one that is off tells nothing and keeps nothing.
    pub fn new(is_on: bool) -> Self {
        Self { waiting: Mutex::default(), more: Notify::new(), is_on }
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
            let Waiting { values, revoked } = std::mem::take(&mut *self.waiting());
            let values = values.into_values().collect();
            let payloads = hints::encode(&Hints { values, revoked, ..Hints::default() }, &store.origin);
            let told = store.notify(&payloads);
            if let Err(error) = told.await {
                tracing::debug!(%error, "values were lost; the other replicas will look by themselves");
            }
        }
    }
}
