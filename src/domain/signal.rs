//! What is told but not logged: typing, and values of which only the last counts.

use serde_json::value::RawValue;

use super::{EventType, RideId, Seq, Time, Topic, UserId};

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

impl Signal {
    /// The data as it is sent.
    pub fn as_raw(&self) -> Result<&RawValue, serde_json::Error> {
        serde_json::from_str(&self.data)
    }
}

/// What a value replaces: presence is one value, whether it says online or offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SignalKind {
    /// Who is typing.
    Typing,
    /// Where the driver is.
    Location,
    /// Whether somebody follows the ride.
    Presence,
    /// Whether a driver takes rides.
    Availability,
}

impl EventType {
    /// The kind of value that events of this type carry; `None` for those that are logged.
    pub fn signal(self) -> Option<SignalKind> {
        match self {
            Self::TypingIndicator => Some(SignalKind::Typing),
            Self::RideLocation => Some(SignalKind::Location),
            Self::DriverAvailability => Some(SignalKind::Availability),
            Self::PresenceOnline | Self::PresenceOffline => Some(SignalKind::Presence),
            _ => None,
        }
    }
}

/// What was last told of whether somebody follows a ride.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastPresence {
    /// Whether they do.
    pub online: bool,
    /// Since when.
    pub since: Time,
    /// Grows with each change.
    pub version: i64,
    /// The head of the ride's log when it changed.
    pub seq: Seq,
}

impl LastPresence {
    /// This as it is told.
    pub fn signal(&self, ride: &RideId, user: &UserId) -> Signal {
        let kind = if self.online { EventType::PresenceOnline } else { EventType::PresenceOffline };
        // No escaping: the characters of an id and of a time are all plain.
        let data = format!(r#"{{"rideId":"{ride}","userId":"{user}","at":"{}"}}"#, self.since);
        let (version, seq) = (self.version, self.seq);
        Signal { topic: Topic::ride(ride), kind, user: user.clone(), version, seq, data }
    }
}
