//! State updates: latest-only and ephemeral values, which are not in the log.

use serde_json::value::RawValue;

use super::{EventType, RideId, Seq, Time, Topic, UserId};

/// A value of a user on a topic, of which only the latest counts. A newer update replaces an older one of the same kind and user. An older
/// update is dropped, wherever it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateUpdate {
    /// The topic.
    pub topic: Topic,
    /// The event type.
    pub kind: EventType,
    /// The user that the value is about.
    pub user: UserId,
    /// Grows with each update: microseconds since 1970, or one more than the previous version.
    pub version: i64,
    /// The head of the topic's log when the value was true. A user who may see the log there may see the value.
    pub seq: Seq,
    /// The data: one line of JSON.
    pub data: String,
}

impl StateUpdate {
    /// Returns the data as it is sent.
    pub fn as_raw(&self) -> Result<&RawValue, serde_json::Error> {
        serde_json::from_str(&self.data)
    }
}

/// The kind of value that an update replaces. Presence is one kind, whether it is online or offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateKind {
    /// Whether a user is typing.
    Typing,
    /// The location of a ride's driver.
    Location,
    /// Whether a participant is online.
    Presence,
    /// Whether a driver is available.
    Availability,
}

impl StateKind {
    /// Returns whether a topic has one value of this kind, whichever user it is about: a ride has one location. Otherwise each user has one.
    pub fn is_one_per_topic(self) -> bool {
        matches!(self, Self::Location)
    }

    /// Returns whether every replica keeps the values of this kind, also those of topics without readers. Typing is in no table, so a later
    /// poll on any replica must find it there.
    pub fn is_kept_everywhere(self) -> bool {
        matches!(self, Self::Typing)
    }
}

impl EventType {
    /// Returns the kind of value that events of this type carry, or `None` for durable events.
    pub fn state_kind(self) -> Option<StateKind> {
        match self {
            Self::TypingIndicator => Some(StateKind::Typing),
            Self::RideLocation => Some(StateKind::Location),
            Self::DriverAvailability => Some(StateKind::Availability),
            Self::PresenceOnline | Self::PresenceOffline => Some(StateKind::Presence),
            _ => None,
        }
    }
}

/// The latest presence of a participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastPresence {
    /// Whether the participant is online.
    pub online: bool,
    /// The time of the last change.
    pub since: Time,
    /// Grows with each change.
    pub version: i64,
    /// The head of the ride's log at the last change.
    pub seq: Seq,
}

impl LastPresence {
    /// Returns the update that announces this presence.
    pub fn to_update(&self, ride: &RideId, user: &UserId) -> StateUpdate {
        let kind = if self.online { EventType::PresenceOnline } else { EventType::PresenceOffline };
        // No escaping: ids and times have only plain characters.
        let data = format!(r#"{{"rideId":"{ride}","userId":"{user}","at":"{}"}}"#, self.since);
        let (version, seq) = (self.version, self.seq);
        StateUpdate { topic: Topic::ride(ride), kind, user: user.clone(), version, seq, data }
    }
}
