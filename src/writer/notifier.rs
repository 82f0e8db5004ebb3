//! Tells the other replicas where the logs end now.
//!
//! After the commit, in a transaction of its own: a NOTIFY inside the write would hold a lock of the whole
//! database across the commit's wait for the disk. While one NOTIFY runs, what comes meanwhile gathers by topic,
//! so the queue is never longer than the topics that have changed since. A hint that is lost here costs the
//! others the wait for their next look at the log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::Committed;
use crate::domain::{Seq, Topic};
use crate::store::{Store, hints, sql};

/// What has not been told yet.
#[derive(Debug, Default)]
pub struct Notifier {
    heads: Mutex<BTreeMap<Topic, Seq>>,
    more: Notify,
}

impl Notifier {
    /// Notes what a commit has changed.
    pub fn note(&self, committed: &Committed) {
        // A std lock: held for a few insertions, never across an await.
        let mut heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        for (topic, seq) in committed.heads() {
            let head = heads.entry(topic.clone()).or_default();
            *head = seq.max(*head);
        }
        drop(heads);
        self.more.notify_one();
    }

    /// Tells, for ever.
    pub async fn run(&self, store: Arc<Store>) {
        loop {
            self.more.notified().await;
            let heads = std::mem::take(&mut *self.heads.lock().unwrap_or_else(PoisonError::into_inner));
            let payloads = hints::encode(&heads);
            let told = async { store.session().await?.query(sql::TOPICS_NOTIFY, &[&payloads]).await };
            if let Err(error) = told.await {
                tracing::debug!(%error, topics = heads.len(), "hints were lost; the other replicas will look by themselves");
            }
        }
    }
}
