//! Delivery of committed events to readers: the hub, the listener that wakes the hub, and subscriptions.
//!
//! A subscription is a loop over a cursor:
//! 1. Take the events after the cursor, from the hub's ring if it has them, otherwise from the log.
//! 2. Deliver them.
//! 3. Wait until the head moves.
//!
//! This one loop covers replay and live delivery, a slow reader, a lost NOTIFY, a restarted Postgres, and a client that has moved to
//! another replica. No queue exists per reader: a slow reader asks later, and then reads from the log.

mod event;
mod feed;
mod gap;
mod hub;
mod listener;
mod merged;
mod merged_cursor;
mod presence;
mod remote_observer;
mod revocations;
mod ride_reader;
mod shard_log;
mod state_cache;
mod subject;
mod subscription;
mod topic;
mod typing;

pub use event::Event;
pub use feed::{FeedReader, FeedStart};
pub use gap::Gap;
pub use hub::Hub;
pub(crate) use listener::listen_to;
pub use listener::{Listener, ListenerState, ReceivedNotifications};
pub use merged::{MAX_RIDES, MergedEvent, MergedItem, MergedReader, MergedStart, TrackPresence};
pub use merged_cursor::MergedCursor;
pub use presence::{PresenceGuard, PresenceTracker};
pub use remote_observer::{RemoteObserver, RemoteUpdate};
pub use revocations::Revocations;
pub use ride_reader::{CloseReason, OpenError, ReadContext, RideItem, RideReader, RideStart};
pub use shard_log::ShardLog;
pub use state_cache::StateFrame;
pub use subscription::{Subscription, TopicItem};
