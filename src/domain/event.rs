//! Events, the topics they are on, and what the words of the interface call them.

use std::fmt;
use std::sync::Arc;

use super::{MessageId, RideId, TraceContext, UserId};

/// The number of an event on its topic: 1, 2, 3, … in commit order, without holes. 0 is before the first.
pub type Seq = i64;

/// Which attempt to commit a batch wrote an event: drawn at random for each.
pub type BatchId = i64;

/// The name of an ordered log of events: one per ride, one per user.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

impl Topic {
    /// The topic of a ride.
    pub fn ride(ride: &RideId) -> Self {
        Self(["ride/", ride.as_str()].concat().into())
    }

    /// The topic of a user. Sorts after all rides' topics: whoever needs both locks them in that order.
    pub fn user(user: &UserId) -> Self {
        Self(["user/", user.as_str()].concat().into())
    }

    /// The topic of dispatch, which has no log: where drivers are and whether they take rides.
    pub fn drivers() -> Self {
        Self("drivers".into())
    }

    /// The feed: the platform's topic, with all events of rides and users.
    pub fn feed() -> Self {
        Self("feed".into())
    }

    /// What counts the users who were erased: no log, but a head that grows with each.
    pub fn users() -> Self {
        Self("users".into())
    }

    /// Whether this is what counts the users who were erased.
    pub fn is_users(&self) -> bool {
        &*self.0 == "users"
    }

    /// Whether this is the topic of a user.
    pub fn is_user(&self) -> bool {
        self.0.starts_with("user/")
    }

    /// Whether this is the feed.
    pub fn is_feed(&self) -> bool {
        &*self.0 == "feed"
    }

    /// A topic as the database names it.
    pub fn from_stored(name: &str) -> Self {
        Self(name.into())
    }

    /// The ride that this is the topic of, if it is one's.
    pub fn ride_id(&self) -> Option<&str> {
        self.0.strip_prefix("ride/")
    }

    /// The name, by which topics are sorted.
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
        /// What an event is about. The text is the `event:` of a stream and the `type` of a poll.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum EventType {
            $($(#[$docs])* $name,)*
            /// What only a newer version knows, whose replicas write to the same log: handed out as it is.
            Other(Name),
        }

        impl EventType {
            /// All types that this version knows.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The type as it is stored and sent.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Other(name) => name.as_str(),
                }
            }

            /// Parses what [`EventType::as_str`] says, of those that this version knows.
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
    /// Its sender changed it.
    MessageEdited => "message:edited",
    /// It was deleted; what was said is gone from the log.
    MessageDeleted => "message:deleted",
    /// Somebody reacted to it, or took that back.
    MessageReaction => "message:reaction",
    /// Somebody has read up to a message.
    MessageRead => "message:read",
    /// Somebody has received up to a message.
    MessageDelivered => "message:delivered",
    /// A driver took the ride.
    RideAccept => "ride:accept",
    /// The ride was cancelled.
    RideCancel => "ride:cancel",
    /// The ride took a step.
    RideStatus => "ride:status",
    /// People joined or left; their rights begin and end at this event.
    RideParticipants => "ride:participants",
    /// A ride has become the user's; on the user's topic.
    RideAssigned => "ride:assigned",
    /// A ride is no longer the user's, or over for good; on the user's topic.
    RideClosed => "ride:closed",
    /// A closed ride was opened again: on its own topic, and on those of its people.
    RideReopened => "ride:reopened",
    /// A broadcast to chosen users; on the user's topic.
    Notice => "notice",
    /// A message has not been delivered to a participant in time; on the feed alone.
    MessageUndelivered => "message:undelivered",
    /// Moderation has flagged a message; on the feed alone.
    MessageFlagged => "message:flagged",
    /// Somebody types, or has stopped; told, not logged.
    TypingIndicator => "typing:indicator",
    /// Somebody on the ride follows it; told, and only the last of these two kept.
    PresenceOnline => "presence:online",
    /// They no longer do.
    PresenceOffline => "presence:offline",
    /// Whether a driver takes rides; on the drivers' topic, told, and only the last one kept.
    DriverAvailability => "driver:availability",
    /// Where the driver is; told, and only the last one kept.
    RideLocation => "ride:location",
}

impl EventType {
    /// A type as the log has it; `None` where it is longer than any that there will be, or would break a frame.
    pub fn from_stored(text: &str) -> Option<Self> {
        Self::parse(text).or_else(|| Name::parse(text).map(Self::Other))
    }

    /// Whether what a reader may see can change here: whoever hands out this event looks at rights again before
    /// handing out the next. What is not known here may well move them.
    pub fn moves_rights(self) -> bool {
        matches!(
            self,
            Self::RideParticipants | Self::RideCancel | Self::RideStatus | Self::RideReopened | Self::Other(_)
        )
    }

    /// Whether the ride, its people and their rights are as they were before: only something was said, or received.
    pub fn leaves_ride(self) -> bool {
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

    /// Whether earlier events of the topic are no longer what they were, or may be.
    pub fn erases(self) -> bool {
        matches!(self, Self::MessageDeleted | Self::Other(_))
    }
}

/// The name of a type that this version does not know. Small enough to be copied, as all types are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name {
    bytes: [u8; Self::LONGEST],
    length: u8,
}

impl Name {
    /// The most bytes.
    const LONGEST: usize = 31;

    /// Takes words of ASCII, as ours are: nothing that could end a line.
    fn parse(text: &str) -> Option<Self> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        let mut bytes = [0; Self::LONGEST];
        bytes.get_mut(..text.len()).filter(|_| is_plain && !text.is_empty())?.copy_from_slice(text.as_bytes());
        Some(Self { bytes, length: u8::try_from(text.len()).ok()? })
    }

    fn as_str(&self) -> &str {
        let name = self.bytes.get(..self.length.into()).unwrap_or_default();
        std::str::from_utf8(name).unwrap_or_default()
    }
}

/// An event to be appended to a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// The topic.
    pub topic: Topic,
    /// Its number there.
    pub seq: Seq,
    /// What it is about.
    pub kind: EventType,
    /// Its data: one line of JSON.
    pub data: String,
    /// The message whose deletion has to find it, where only this says so: on edits.
    pub message: Option<MessageId>,
    /// Where what comes of it is traced.
    pub trace: Option<TraceContext>,
}

/// Which types of events a reader wants: the `types` parameter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter(Option<Box<[Pattern]>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    text: Box<str>,
    is_prefix: bool,
}

impl Filter {
    /// Parses a comma list of types; a `*` at the end matches a prefix; unknown ones match nothing.
    pub fn parse(list: &str) -> Self {
        let pattern = |item: &str| {
            let text = item.strip_suffix('*');
            Pattern { is_prefix: text.is_some(), text: text.unwrap_or(item).into() }
        };
        Self(Some(list.split(',').map(str::trim).filter(|item| !item.is_empty()).map(pattern).collect()))
    }

    /// Whether events of this type pass.
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
    fn a_type_of_a_newer_version_is_what_it_is_called() {
        let newer = EventType::from_stored("ride:shared").unwrap();
        assert_eq!((newer.as_str(), EventType::parse("ride:shared")), ("ride:shared", None));
        assert!(newer.moves_rights() && newer.erases());
        assert_eq!(EventType::from_stored("message:new"), Some(EventType::MessageNew));
        assert!(EventType::from_stored(&"x".repeat(31)).is_some());
        for none in ["", "two words", "a\nb", "r\u{f6}d", &"x".repeat(32)] {
            assert_eq!(EventType::from_stored(none), None, "{none:?}");
        }
    }
}
