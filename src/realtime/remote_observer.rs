//! A callback that receives what other replicas have committed.

use std::fmt;

use tokio::time::Instant;

use crate::domain::{Seq, Topic};
use crate::store::StoredEvent;
use crate::store::hints::Heads;

/// Information about the commits of other replicas.
#[derive(Debug, Clone, Copy)]
pub enum RemoteUpdate<'a> {
    /// Heads of logs, as a hint reports them.
    Heads(&'a Heads),
    /// Events that this replica has read from a log.
    Events {
        /// The topic.
        topic: &'a Topic,
        /// The log position after which it read.
        after: Seq,
        /// The next events, in order.
        events: &'a [StoredEvent],
        /// A time not later than the start of the read.
        requested_at: Instant,
    },
}

/// A callback that receives each [`RemoteUpdate`].
pub struct RemoteObserver(Box<dyn Fn(RemoteUpdate<'_>) + Send + Sync>);

impl RemoteObserver {
    /// Creates an observer that calls `callback` with each update.
    pub fn new(callback: impl Fn(RemoteUpdate<'_>) + Send + Sync + 'static) -> Self {
        Self(Box::new(callback))
    }

    pub(super) fn on_update(&self, update: RemoteUpdate<'_>) {
        (self.0)(update);
    }
}

impl fmt::Debug for RemoteObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RemoteObserver")
    }
}
