//! Events, their types, and the topics that they are on.

use std::fmt;
use std::sync::Arc;

use super::{MessageId, RideId, TraceContext, UnknownName, UserId};

/// The number of an event on its topic: 1, 2, 3, … in commit order, without holes. 0 is the position before the first event.
pub type Seq = i64;

/// Identifies the attempt to commit a batch that wrote an event. Each attempt draws a random id.
pub type BatchId = i64;

/// The name of a topic, which is an ordered log of events: one per ride and one per user.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

impl Topic {
    /// Returns the topic of a ride.
    pub fn ride(ride: &RideId) -> Self {
        Self(["ride/", ride.as_str()].concat().into())
    }

    /// Returns the topic of a user. It sorts after all rides' topics: a transaction that needs both locks them in that order.
    pub fn user(user: &UserId) -> Self {
        Self(["user/", user.as_str()].concat().into())
    }

    /// Returns the topic of dispatch. It has no log: it carries the availability of drivers.
    pub fn drivers() -> Self {
        Self("drivers".into())
    }

    /// Returns the topic of the feed, which has all events of rides and users.
    pub fn feed() -> Self {
        Self("feed".into())
    }

    /// Returns the topic that counts erased users. It has no log, but its head grows with each erasure.
    pub fn users() -> Self {
        Self("users".into())
    }

    /// Returns whether this is the topic that counts erased users.
    pub fn is_users(&self) -> bool {
        &*self.0 == "users"
    }

    /// Returns whether this is the topic of a user.
    pub fn is_user(&self) -> bool {
        self.0.starts_with("user/")
    }

    /// Returns whether this is the topic of the feed.
    pub fn is_feed(&self) -> bool {
        &*self.0 == "feed"
    }

    /// Reads a stored topic name.
    pub fn from_stored(name: &str) -> Self {
        Self(name.into())
    }

    /// Returns the ride's id, where this is the topic of a ride.
    pub fn ride_id(&self) -> Option<&str> {
        self.0.strip_prefix("ride/")
    }

    /// Returns whether the topic has latest-only values: a location and presence, or the availability of drivers.
    pub fn has_values(&self) -> bool {
        self.ride_id().is_some() || &*self.0 == "drivers"
    }

    /// Returns the name. Topics are sorted by it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! event_types {
    ($($(#[$docs:meta])* $name:ident => $text:literal,)*) => {
        /// The type of an event: the `event:` field of a stream and the `type` in a poll.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum EventType {
            $($(#[$docs])* $name,)*
            /// A type of a newer version, whose replicas write to the same log. Such events are delivered unchanged.
            Other(UnknownName),
        }

        impl EventType {
            /// All types that this version defines.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Returns the type as it is stored and sent.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Other(name) => name.as_str(),
                }
            }

            /// Parses the name of a type that this version defines.
            pub fn parse(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

event_types! {
    /// A message was sent.
    MessageNew => "message:new",
    /// The sender edited a message.
    MessageEdited => "message:edited",
    /// A message was deleted. Its content is erased from the log.
    MessageDeleted => "message:deleted",
    /// A user added or removed a reaction.
    MessageReaction => "message:reaction",
    /// A user's read watermark moved.
    MessageRead => "message:read",
    /// A user's delivered watermark moved.
    MessageDelivered => "message:delivered",
    /// A driver accepted the ride.
    RideAccept => "ride:accept",
    /// The ride was cancelled.
    RideCancel => "ride:cancel",
    /// The ride's status changed.
    RideStatus => "ride:status",
    /// Participants joined or left. Their access begins and ends at this event.
    RideParticipants => "ride:participants",
    /// The user became a participant of a ride. On the user's topic.
    RideAssigned => "ride:assigned",
    /// The user is no longer a participant of a ride, or the ride is closed. On the user's topic.
    RideClosed => "ride:closed",
    /// A closed ride was reopened. On the ride's topic and on its participants' user topics.
    RideReopened => "ride:reopened",
    /// A broadcast to chosen users. On the user's topic.
    Notice => "notice",
    /// A message was not delivered to a participant in time. On the feed only.
    MessageUndelivered => "message:undelivered",
    /// Moderation flagged a message. On the feed only.
    MessageFlagged => "message:flagged",
    /// A user started or stopped typing. Ephemeral.
    TypingIndicator => "typing:indicator",
    /// A participant came online. Latest-only, together with `presence:offline`.
    PresenceOnline => "presence:online",
    /// A participant went offline.
    PresenceOffline => "presence:offline",
    /// A driver's availability changed. Latest-only, on the drivers' topic.
    DriverAvailability => "driver:availability",
    /// The driver's location changed. Latest-only.
    RideLocation => "ride:location",
}

impl EventType {
    /// Reads a stored type. Returns `None` where it is longer than 31 bytes, or would break an SSE frame.
    pub fn from_stored(text: &str) -> Option<Self> {
        Self::parse(text).or_else(|| UnknownName::parse(text).map(Self::Other))
    }

    /// Returns whether access may change at an event of this type. A reader refreshes its access after such an event, before it
    /// delivers the next one. An unknown type may change access, too.
    pub fn changes_access(self) -> bool {
        matches!(
            self,
            Self::RideParticipants | Self::RideCancel | Self::RideStatus | Self::RideReopened | Self::Other(_)
        )
    }

    /// Returns whether an event of this type leaves the ride, its participants and their access unchanged: message events.
    pub fn leaves_ride_unchanged(self) -> bool {
        matches!(
            self,
            Self::MessageNew
                | Self::MessageEdited
                | Self::MessageDeleted
                | Self::MessageReaction
                | Self::MessageDelivered
                | Self::MessageRead
        )
    }

    /// Returns whether an event of this type may change earlier events of the topic.
    pub fn erases(self) -> bool {
        matches!(self, Self::MessageDeleted | Self::Other(_))
    }
}

/// An event to be appended to a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// The topic.
    pub topic: Topic,
    /// The event's number on the topic.
    pub seq: Seq,
    /// The event's type.
    pub kind: EventType,
    /// The event's data: one line of JSON.
    pub data: String,
    /// The message whose deletion erases this event, where no other column has it: on edits.
    pub message: Option<MessageId>,
    /// The trace context for work that this event causes.
    pub trace: Option<TraceContext>,
}

/// A filter of event types: the `types` parameter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter(Option<Box<[Pattern]>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    text: Box<str>,
    is_prefix: bool,
}

impl Filter {
    /// Parses a comma-separated list of types. `*` at the end matches a prefix. Unknown types match nothing.
    pub fn parse(list: &str) -> Self {
        let pattern = |item: &str| {
            let text = item.strip_suffix('*');
            Pattern { is_prefix: text.is_some(), text: text.unwrap_or(item).into() }
        };
        Self(Some(list.split(',').map(str::trim).filter(|item| !item.is_empty()).map(pattern).collect()))
    }

    /// Returns whether events of this type pass the filter.
    pub fn passes(&self, kind: EventType) -> bool {
        let Some(patterns) = &self.0 else { return true };
        let kind = kind.as_str();
        patterns
            .iter()
            .any(|wanted| if wanted.is_prefix { kind.starts_with(&*wanted.text) } else { kind == &*wanted.text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_matches_types_and_prefixes() {
        let passes = |list: &str, kind| Filter::parse(list).passes(kind);
        assert!(Filter::default().passes(EventType::RideStatus));
        assert!(passes("message:new,ride:status", EventType::RideStatus));
        assert!(passes(" message:* ", EventType::MessageRead));
        assert!(passes("*", EventType::MessageRead));
        assert!(!passes("message:new*,nonsense", EventType::MessageRead));
        assert!(!passes("", EventType::MessageRead));
        assert!(!passes("message", EventType::MessageRead));
        let newer = EventType::from_stored("message:pinned").unwrap();
        assert!(passes("message:*", newer) && passes("message:pinned", newer) && !passes("message:new", newer));
    }

    #[test]
    fn a_type_of_a_newer_version_keeps_its_name() {
        let newer = EventType::from_stored("ride:shared").unwrap();
        assert_eq!((newer.as_str(), EventType::parse("ride:shared")), ("ride:shared", None));
        assert!(newer.changes_access() && newer.erases());
        assert_eq!(EventType::from_stored("message:new"), Some(EventType::MessageNew));
        assert!(EventType::from_stored(&"x".repeat(31)).is_some());
        for none in ["", "two words", "a\nb", "r\u{f6}d", &"x".repeat(32)] {
            assert_eq!(EventType::from_stored(none), None, "{none:?}");
        }
    }
}
