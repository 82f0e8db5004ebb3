//! Tells the other replicas where the logs end now, and what is told without being logged.
//!
//! After the commit, in a transaction of its own: a NOTIFY inside the write would hold a lock of the whole
//! database across the commit's wait for the disk. While one NOTIFY runs, what comes meanwhile gathers by topic,
//! and values by whose they are; so the queue is never longer than what has changed since. A hint that is lost
//! here costs the others the wait for their next look.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Committed;
use crate::domain::{Seq, Signal, SignalKind, Topic, UserId};
use crate::store::hints::{self, Hints};
use crate::store::{Store, sql};

/// What has not been told yet.
#[derive(Debug)]
pub struct Notifier {
    waiting: Mutex<Waiting>,
    more: Notify,
    is_on: bool,
}

#[derive(Debug, Default)]
struct Waiting {
    heads: BTreeMap<Topic, Seq>,
    values: HashMap<(Topic, SignalKind, UserId), Signal>,
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

    /// Notes what a commit has changed.
    pub fn note(&self, committed: &Committed) {
        if !self.is_on {
            return;
        }
        let mut waiting = self.waiting();
        for (topic, seq) in committed.heads() {
            let head = waiting.heads.entry(topic.clone()).or_default();
            *head = seq.max(*head);
        }
        drop(waiting);
        self.more.notify_one();
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

    /// Tells, for ever.
    pub async fn run(&self, store: Arc<Store>) {
        loop {
            self.more.notified().await;
            let Waiting { heads, values } = std::mem::take(&mut *self.waiting());
            let payloads = hints::encode(&Hints { heads, values: values.into_values().collect() });
            let told = async { store.session().await?.query(sql::TOPICS_NOTIFY, &[&payloads]).await };
            if let Err(error) = told.await {
                tracing::debug!(%error, "hints were lost; the other replicas will look by themselves");
            }
        }
    }
}
