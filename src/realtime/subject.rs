//! The message that an event is about. A reader who may not see that message does not receive the event: its seq is skipped, as with a
//! filter.
//!
//! Only a reader whose access does not begin with the ride's log has such events: a driver who replaced another driver. For such a reader
//! the message is taken from the event's data. A reaction names its message by id only, so its seq is read from the messages.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use super::Event;
use crate::domain::{AccessIntervals, EventType, MessageId, Seq};
use crate::store::{Store, StoreError};

/// The message that an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    /// No message, or the message that the event itself creates.
    None,
    /// The message with this seq.
    Seq(Seq),
    /// The message with this id.
    Id(MessageId),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    seq: Option<Seq>,
    message_id: Option<&'a str>,
}

impl Subject {
    fn of(event: &Event) -> Self {
        let is_known_type = event.kind.leaves_ride_unchanged();
        let is_of_message = is_known_type || event.kind.as_str().starts_with("message:");
        if !is_of_message || event.kind == EventType::MessageNew {
            return Self::None;
        }
        let data = serde_json::from_str(event.data()).unwrap_or(Data { seq: None, message_id: None });
        match (data.seq, data.message_id.and_then(MessageId::parse)) {
            (Some(seq), _) => Self::Seq(seq),
            (None, Some(id)) => Self::Id(id),
            // An unknown type of a newer version may concern no message. If the data of a known type is invalid, no reader may see the event.
            (None, None) if is_known_type => Self::Seq(0),
            (None, None) => Self::None,
        }
    }
}

/// Returns the seqs of the events that are about messages outside `intervals`.
pub(super) async fn hidden(
    store: &Store,
    intervals: &AccessIntervals,
    events: &[Event],
) -> Result<HashSet<Seq>, StoreError> {
    let subjects = || events.iter().map(|event| (event.seq, Subject::of(event)));
    let named = subjects().filter_map(|(_, subject)| match subject {
        Subject::Id(id) => Some(id),
        Subject::Seq(_) | Subject::None => None,
    });
    let named: HashSet<_> = named.collect();
    let seqs = if named.is_empty() { HashMap::new() } else { store.seqs_of_messages(named).await? };
    let is_hidden = |subject: &Subject| match subject {
        Subject::None => false,
        Subject::Seq(seq) => !intervals.contains(*seq),
        // Retention deletes messages after their events. So a message that does not exist is one that the reader may not see.
        Subject::Id(id) => !seqs.get(id).is_some_and(|seq| intervals.contains(*seq)),
    };
    Ok(subjects().filter(|(_, subject)| is_hidden(subject)).map(|(seq, _)| seq).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subject_is_the_message_that_the_data_names() {
        let id = MessageId::new();
        let subject = |kind, data: &str| Subject::of(&Event::new(20, kind, data));
        let reaction = format!(r#"{{"rideId":"r","messageId":"{id}","userId":"u"}}"#);
        assert_eq!(subject(EventType::MessageReaction, &reaction), Subject::Id(id));
        let deleted = format!(r#"{{"rideId":"r","messageId":"{id}","seq":4,"by":"u"}}"#);
        for kind in [EventType::MessageDeleted, EventType::MessageRead, EventType::MessageDelivered] {
            assert_eq!(subject(kind, &deleted), Subject::Seq(4));
        }
        assert_eq!(subject(EventType::MessageEdited, r#"{"id":"x","seq":4,"content":"a\nb"}"#), Subject::Seq(4));
        assert_eq!(subject(EventType::MessageNew, r#"{"id":"x","seq":4}"#), Subject::None);
        assert_eq!(subject(EventType::RideStatus, r#"{"ride":{},"by":"u"}"#), Subject::None);
        let newer = EventType::from_stored("message:pinned").unwrap();
        assert_eq!(subject(newer, &deleted), Subject::Seq(4));
        assert_eq!(subject(newer, r#"{"pinned":1}"#), Subject::None);
        assert_eq!(
            subject(EventType::MessageEdited, "null"),
            Subject::Seq(0),
            "an event with invalid data is hidden from all readers"
        );
    }
}
