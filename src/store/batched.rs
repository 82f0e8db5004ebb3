//! The requests and responses of the batched statements.
//!
//! [`Store`](super::Store) has a [`Batcher`](super::Batcher) for each kind of request.

use std::time::Duration;

use uuid::Uuid;

use crate::domain::{BatchId, DriverState, EventType, RideId, Seq, Time, Topic, TraceContext, UserId};

/// The approximate maximum of event bytes that one page of a topic has.
pub(super) const EVENT_BYTES: i64 = 64 * 1024;

/// An event of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its position in the topic's log.
    pub seq: Seq,
    /// Its type.
    pub kind: EventType,
    /// Its data: one line of JSON.
    pub data: String,
    /// The trace context for its delivery.
    pub trace: Option<TraceContext>,
    /// When it was committed.
    pub at: Time,
    /// The batch that wrote it, if it is recorded.
    pub batch: Option<BatchId>,
    /// The batch that wrote the event before it, if it is known.
    pub batch_before: Option<BatchId>,
}

/// A request for the events of `topic` after `after`: at most `limit`, and fewer if they are large.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageRequest {
    /// The topic.
    pub topic: Topic,
    /// The cursor (exclusive).
    pub after: Seq,
    /// The maximum number of events.
    pub limit: i64,
}

/// A location to store.
#[derive(Debug)]
pub(super) struct NewLocation {
    /// The ride.
    pub(super) ride: RideId,
    /// The driver.
    pub(super) driver: UserId,
    /// The head of the ride's log.
    pub(super) seq: Seq,
    /// When the driver was there.
    pub(super) at: Time,
    /// Its data: one line of JSON.
    pub(super) data: String,
}

/// An availability to store, and how long it counts as the driver's presence.
#[derive(Debug)]
pub(super) struct NewDriverState {
    /// The availability.
    pub(super) state: DriverState,
    /// How long an available driver counts as present.
    pub(super) expires_after: Duration,
}

/// A topic that has readers on a replica.
#[derive(Debug)]
pub(super) struct FollowedTopic {
    /// The topic.
    pub(super) topic: Topic,
    /// The replica's lease.
    pub(super) replica: Uuid,
    /// A removal of an earlier generation does not remove it.
    pub(super) generation: i64,
}

/// The lease of a queue that this replica has claimed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lease {
    /// The endpoint.
    pub webhook: String,
    /// The topic.
    pub topic: String,
    /// The fencing token: random, drawn when the queue was claimed.
    pub token: i64,
}

/// A delivery to be attempted.
#[derive(Debug)]
pub struct DueDelivery {
    /// Where it goes.
    pub url: String,
    /// The secrets that sign it, the newest first.
    pub secrets: Vec<Vec<u8>>,
    /// How long the endpoint has been failing, or `None`.
    pub failing: Option<Duration>,
    /// The event's position in the feed.
    pub position: Seq,
    /// The event's topic.
    pub topic: String,
    /// The event's seq on its topic.
    pub seq: Seq,
    /// The event's type.
    pub kind: String,
    /// When the event was committed.
    pub at: Time,
    /// The number of attempts so far.
    pub attempts: i64,
    /// The time since the first attempt, if there was one.
    pub age: Option<Duration>,
    /// The event's data as on the feed; `None` if it has expired or was erased.
    pub data: Option<String>,
}

/// The outcome of an attempt.
#[derive(Debug, Clone)]
pub struct AttemptOutcome {
    /// The delivery.
    pub position: Seq,
    /// Its state now.
    pub state: DeliveryState,
    /// The status of the response, if there was one.
    pub status: Option<u16>,
    /// The duration of the attempt.
    pub took: Duration,
    /// The error of a failed attempt.
    pub error: Option<String>,
    /// The delay until the next attempt, for a pending delivery.
    pub delay: Duration,
}

/// The state of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// It waits for its first or next attempt.
    Pending,
    /// It has failed, and no more attempts are made.
    Failed,
    /// The endpoint has accepted it.
    Delivered,
}

impl DeliveryState {
    /// Returns the state as it is stored and sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Failed => "failed",
            Self::Delivered => "delivered",
        }
    }

    /// Parses what [`DeliveryState::as_str`] returns.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Pending, Self::Failed, Self::Delivered].into_iter().find(|state| state.as_str() == text)
    }
}
