//! Which message an event concerns. Whoever may not see that message is not handed the event: its seq is skipped, as with a
//! filter.
//!
//! Only a reader whose parts of the log do not begin with the ride meets such events: a driver after another. What they
//! concern is read from their data then, and for reactions, which name the message by its id alone, from the messages.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use super::Event;
use crate::domain::{EventType, MessageId, Parts, Seq};
use crate::store::{Store, StoreError};

/// What an event concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    /// No message, or the one that it is itself.
    None,
    /// The message of this seq.
    Seq(Seq),
    /// The message of this id.
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
        let is_known = event.kind.leaves_ride();
        let is_of_message = is_known || event.kind.as_str().starts_with("message:");
        if !is_of_message || event.kind == EventType::MessageNew {
            return Self::None;
        }
        let data = serde_json::from_str(event.data()).unwrap_or(Data { seq: None, message_id: None });
        match (data.seq, data.message_id.and_then(MessageId::parse)) {
            (Some(seq), _) => Self::Seq(seq),
            (None, Some(id)) => Self::Id(id),
            // A type of a newer version may concern no message. One of ours that cannot be read is nobody's.
            (None, None) if is_known => Self::Seq(0),
            (None, None) => Self::None,
        }
    }
}

/// The seqs of those events that concern messages outside `parts`.
pub(super) async fn hidden(store: &Store, parts: &Parts, events: &[Event]) -> Result<HashSet<Seq>, StoreError> {
    let subjects = || events.iter().map(|event| (event.seq, Subject::of(event)));
    let named = subjects().filter_map(|(_, subject)| match subject {
        Subject::Id(id) => Some(id),
        Subject::Seq(_) | Subject::None => None,
    });
    let named: HashSet<_> = named.collect();
    let seqs = if named.is_empty() { HashMap::new() } else { store.seqs_of_messages(named).await? };
    let is_hidden = |subject: &Subject| match subject {
        Subject::None => false,
        Subject::Seq(seq) => !parts.contains(*seq),
        // Retention takes messages after the log, so one that is not there was none that they could see.
        Subject::Id(id) => !seqs.get(id).is_some_and(|seq| parts.contains(*seq)),
    };
    Ok(subjects().filter(|(_, subject)| is_hidden(subject)).map(|(seq, _)| seq).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_concerns_the_message_that_its_data_names() {
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
        assert_eq!(subject(EventType::MessageEdited, "null"), Subject::Seq(0), "what cannot be read is nobody's");
    }
}
