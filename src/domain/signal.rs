//! What is told but not logged: typing, and values of which only the last counts.

use super::{EventType, Seq, Topic, UserId};

/// A value of somebody's on a topic. A later one replaces an earlier one of the same kind and user; one that comes
/// late is dropped, wherever it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signal {
    /// The topic.
    pub topic: Topic,
    /// What it is about.
    pub kind: EventType,
    /// Whose.
    pub user: UserId,
    /// Grows with each value: microseconds since 1970, or one more than the value before.
    pub version: i64,
    /// The head of the topic's log when it was true: who may see the log there may see this.
    pub seq: Seq,
    /// Its data: one line of JSON.
    pub data: String,
}

/// What a value replaces: presence is one value, whether it says online or offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SignalKind {
    /// Who is typing.
    Typing,
    /// Where the driver is.
    Location,
}

impl EventType {
    /// The kind of value that events of this type carry; `None` for those that are logged.
    pub fn signal(self) -> Option<SignalKind> {
        match self {
            Self::TypingIndicator => Some(SignalKind::Typing),
            Self::RideLocation => Some(SignalKind::Location),
            _ => None,
        }
    }
}
