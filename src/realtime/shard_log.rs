//! The events of one shard, for readers.

use std::sync::Arc;

use super::Hub;
use crate::store::Store;

/// The log of a shard, and the hub that provides its live events.
#[derive(Debug, Clone)]
pub struct ShardLog {
    /// Provides live events.
    pub hub: Arc<Hub>,
    /// Provides the log.
    pub store: Arc<Store>,
}
