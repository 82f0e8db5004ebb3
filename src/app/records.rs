//! Starts what is recorded beside the log: the audit log, and when messages were handed to connections.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::audit::AuditLog;
use crate::config::Settings;
use crate::handovers::Handovers;
use crate::store::Store;

/// What is recorded.
pub(super) struct Records {
    pub(super) audit: Arc<AuditLog>,
    pub(super) handovers: Arc<Handovers>,
}

impl Records {
    /// Both, and the tasks that write them.
    pub(super) fn start(store: &Arc<Store>, settings: &Settings, tasks: &mut JoinSet<()>) -> Self {
        let is_traced = !settings.message_trace_retention.is_zero();
        let records = Self { audit: Arc::default(), handovers: Arc::new(Handovers::new(is_traced)) };
        let (audit, for_audit) = (Arc::clone(&records.audit), Arc::clone(store));
        tasks.spawn(async move { audit.run(&for_audit).await });
        let (handovers, for_handovers) = (Arc::clone(&records.handovers), Arc::clone(store));
        tasks.spawn(async move { handovers.run(&for_handovers).await });
        records
    }

    /// Writes what is not written yet.
    pub(super) async fn flush(&self, store: &Store) {
        if let Err(error) = self.audit.flush(store).await {
            tracing::warn!(%error, entries = self.audit.waiting(), "audit entries lost");
        }
        drop(self.handovers.flush(store).await);
    }
}
