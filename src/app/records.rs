//! Starts the recorders outside of the event log: the audit log, and the handovers of messages to connections.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::audit::AuditLog;
use crate::config::Settings;
use crate::domain::Sharded;
use crate::handovers::HandoverRecorder;
use crate::store::{Store, StoreError};

/// The recorders.
pub(super) struct Records {
    pub(super) audit: Arc<AuditLog>,
    pub(super) handovers: Arc<HandoverRecorder>,
}

impl Records {
    /// Creates both recorders, and spawns the tasks that write their entries.
    pub(super) fn start(stores: &Arc<Sharded<Arc<Store>>>, settings: &Settings, tasks: &mut JoinSet<()>) -> Self {
        let is_traced = !settings.message_trace_retention.is_zero();
        let records = Self { audit: Arc::default(), handovers: Arc::new(HandoverRecorder::new(is_traced)) };
        let (audit, for_audit) = (Arc::clone(&records.audit), Arc::clone(stores.first()));
        tasks.spawn(async move { audit.run(&for_audit).await });
        let (handovers, for_handovers) = (Arc::clone(&records.handovers), Arc::clone(stores));
        tasks.spawn(async move { handovers.run(&for_handovers).await });
        records
    }

    /// Writes the pending entries of both, until `deadline`.
    pub(super) async fn flush(&self, stores: &Sharded<Arc<Store>>, deadline: Instant) {
        let written = timeout_at(deadline, self.audit.flush(stores.first())).await;
        if let Err(error) = written.unwrap_or(Err(StoreError::Timeout)) {
            tracing::warn!(%error, entries = self.audit.pending(), "audit entries lost, because the shutdown could not write them");
        }
        drop(timeout_at(deadline, self.handovers.flush(stores)).await);
    }
}
