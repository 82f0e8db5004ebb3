//! A batch after its commit, and the parts that every batch needs to run.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::queue::QueuedCommand;
use super::stored_events::{Relayed, StoredEvents};
use super::{RideCache, WriterConfig};
use crate::domain::NewEvent;
use crate::store::Store;

/// The events of one commit.
#[derive(Debug)]
pub struct CommittedBatch {
    /// In order within each topic.
    pub events: Vec<NewEvent>,
    /// Their positions on the feed, if the batch has assigned positions.
    pub relayed: Option<Relayed>,
    /// Whether the batch may have added rows to the outbox.
    pub has_outbox_rows: bool,
    /// The number of commands in the batch.
    pub commands: usize,
    /// The time from the start of the batch to its commit.
    pub duration: Duration,
}

/// What every batch needs to run.
#[derive(Debug)]
pub(super) struct BatchContext {
    pub(super) store: Arc<Store>,
    pub(super) config: WriterConfig,
    pub(super) ride_cache: Arc<RideCache>,
}

impl BatchContext {
    /// Notifies the feed's readers of positions that a batch without events of its own has assigned to other batches.
    pub(super) fn announce(&self, relayed: Option<Relayed>) {
        if let (Some(relay), Some(relayed)) = (&self.config.relay, relayed) {
            relay.relayed_by_batch(&relayed);
        }
    }
}

/// A batch that is committed, but not published.
#[derive(Debug)]
pub(super) struct StoredBatch {
    commands: Vec<QueuedCommand>,
    committed: CommittedBatch,
}

impl StoredBatch {
    pub(super) fn new(commands: Vec<QueuedCommand>, stored: StoredEvents, started: Instant) -> Self {
        let StoredEvents { events, relayed, has_outbox_rows } = stored;
        let (count, duration) = (commands.len(), started.elapsed());
        let committed = CommittedBatch { events, relayed, has_outbox_rows, commands: count, duration };
        Self { commands, committed }
    }

    /// Publishes the events to the hub, then responds to the callers. A caller that has its response finds the event in the hub.
    pub(super) fn publish(self, on_commit: &impl Fn(CommittedBatch)) {
        on_commit(self.committed);
        self.commands.into_iter().for_each(|queued| queued.command.respond());
    }
}
