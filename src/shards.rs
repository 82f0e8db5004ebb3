//! The shards of this deployment: everything that commits, stores and publishes the events of one shard.
//!
//! Invariants:
//! - A batch, and so a lock and a commit, concerns one shard.
//! - Each shard has its own connections, writer, hub and listener. If the database of one shard fails, the others go on.

use std::sync::Arc;

use crate::domain::{ShardId, StateUpdate};
use crate::realtime::{Hub, Listener, PresenceTracker};
use crate::store::Store;
use crate::writer::relay::Relay;
use crate::writer::{Acknowledger, Notifier, Writer};

/// The parts of one shard.
#[derive(Debug, Clone)]
pub struct Shard {
    /// The number of the shard.
    pub id: ShardId,
    /// Reads from the shard's database.
    pub store: Arc<Store>,
    /// Commits commands.
    pub writer: Writer,
    /// Commits the deliveries that cursors acknowledge.
    pub acknowledger: Arc<Acknowledger>,
    /// The presence of users with open streams and polls.
    pub presence: Arc<PresenceTracker>,
    /// Notifies the other replicas.
    pub notifier: Arc<Notifier>,
    /// Live events.
    pub hub: Arc<Hub>,
    /// Receives notifications from the other replicas.
    pub listener: Arc<Listener>,
    /// Appends events to the feed.
    pub relay: Arc<Relay>,
}

impl Shard {
    /// Publishes a latest-only or ephemeral value here and on the other replicas.
    pub fn publish(&self, update: StateUpdate) {
        self.hub.publish_update(&update);
        self.notifier.notify(update);
    }
}
