//! An event, encoded once for all who read it.

use std::borrow::Cow;
use std::ops::Range;
use std::time::Instant;

use bytes::Bytes;

use crate::domain::{EventType, NewEvent, Seq, TraceContext};
use crate::store::StoredEvent;

/// An event of a topic as a frame of a stream (HTML standard, section 9.2.5):
/// `id: 7\nevent: message:new\ndata: {…}\n\n`. Clones share the bytes.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its number on its topic.
    pub seq: Seq,
    /// What it is about.
    pub kind: EventType,
    /// When this replica had it.
    pub arrived: Instant,
    /// Where it is traced, which few are.
    pub trace: Option<Box<TraceContext>>,
    frame: Bytes,
    /// Where the line of its id ends in the frame; 0 where that line is left out, so that others can share the rest.
    own_id: usize,
    data: Range<usize>,
}

impl Event {
    /// Encodes an event. `data` is one line of JSON, in which a line break can only be an escape, so none can
    /// end the frame early.
    pub fn new(seq: Seq, kind: EventType, data: &str) -> Self {
        let data = &*one_line(data);
        let frame = ["id: ", &seq.to_string(), "\nevent: ", kind.as_str(), "\ndata: ", data, "\n\n"].concat();
        let to = frame.len() - "\n\n".len();
        let own_id =
            frame.len() - ("\nevent: ".len() + kind.as_str().len() + "\ndata: ".len() + data.len() + "\n\n".len());
        let (frame, data) = (frame.into(), to - data.len()..to);
        Self { seq, kind, arrived: Instant::now(), trace: None, frame, own_id, data }
    }

    /// The same without its id, which others take the place of.
    fn without_id(self) -> Self {
        let own_id = self.own_id;
        let data = self.data.start - own_id..self.data.end - own_id;
        Self { frame: self.frame.slice(own_id..), own_id: 0, data, ..self }
    }

    fn traced(self, trace: Option<TraceContext>) -> Self {
        Self { trace: trace.map(Box::new), ..self }
    }

    /// How many bytes it has.
    pub fn size(&self) -> usize {
        self.frame.len()
    }

    /// The whole frame. A notice has none of its own: it is on users' topics alone, which are read with [other
    /// ids](Self::frame_as).
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// The frame with another id: that of a stream of many topics.
    pub fn frame_as(&self, id: &str) -> Bytes {
        let rest = self.frame.get(self.own_id..).unwrap_or_default();
        [b"id: ", id.as_bytes(), rest].concat().into()
    }

    /// The data: JSON.
    pub fn data(&self) -> &str {
        // The bytes were a string, and the range is where it lies in them.
        self.frame.get(self.data.clone()).and_then(|data| std::str::from_utf8(data).ok()).unwrap_or("null")
    }
}

/// JSON without the characters that some readers take for the end of a line though the HTML standard does not: U+0085, U+2028
/// and U+2029 (Python's `splitlines`, and with it several SSE clients). In JSON they can only be within strings, where an
/// escape means the same.
fn one_line(json: &str) -> Cow<'_, str> {
    const ENDS: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];
    if !json.contains(ENDS) {
        return Cow::Borrowed(json);
    }
    let escaped =
        ENDS.iter().fold(json.to_owned(), |json, end| json.replace(*end, &format!("\\u{:04x}", u32::from(*end))));
    Cow::Owned(escaped)
}

/// Encodes events one after the other. Notices that say the same share their bytes, whoever they are for: a broadcast to many
/// users who are here costs memory once for each of its batches.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    /// The last notice, and its data as it came.
    last: Option<(String, Event)>,
}

impl Encoder {
    /// Encodes an event.
    pub(super) fn encode(&mut self, seq: Seq, kind: EventType, data: &str, trace: Option<TraceContext>) -> Event {
        if kind != EventType::Notice {
            return Event::new(seq, kind, data).traced(trace);
        }
        let shared = match self.last.take() {
            Some((last, event)) if last == data => (last, event),
            _ => (data.to_owned(), Event::new(seq, kind, data).without_id()),
        };
        let event = Event { seq, arrived: Instant::now(), ..shared.1.clone() }.traced(trace);
        self.last = Some(shared);
        event
    }
}

impl From<&NewEvent> for Event {
    fn from(event: &NewEvent) -> Self {
        Self::new(event.seq, event.kind, &event.data).traced(event.trace)
    }
}

impl From<StoredEvent> for Event {
    fn from(event: StoredEvent) -> Self {
        Self::new(event.seq, event.kind, &event.data).traced(event.trace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_frame_of_a_stream() {
        let event = Event::new(7, EventType::MessageNew, r#"{"content":"a\nb"}"#);
        assert_eq!(event.frame(), &Bytes::from("id: 7\nevent: message:new\ndata: {\"content\":\"a\\nb\"}\n\n"));
        assert_eq!(
            event.frame_as("abc"),
            Bytes::from("id: abc\nevent: message:new\ndata: {\"content\":\"a\\nb\"}\n\n")
        );
        assert_eq!(event.data(), r#"{"content":"a\nb"}"#);
    }

    #[test]
    fn notices_that_say_the_same_share_their_bytes() {
        let mut encoder = Encoder::default();
        let mut encode = |seq, data| encoder.encode(seq, EventType::Notice, data, None);
        let (one, two, other) = (encode(7, r#"{"a":1}"#), encode(1_000, r#"{"a":1}"#), encode(8, r#"{"a":2}"#));
        assert_eq!(one.frame.as_ptr(), two.frame.as_ptr());
        assert_eq!((one.seq, two.seq, two.data(), other.data()), (7, 1_000, r#"{"a":1}"#, r#"{"a":2}"#));
        assert_eq!(two.frame_as("x"), Bytes::from("id: x\nevent: notice\ndata: {\"a\":1}\n\n"));
        assert_eq!(Event::new(7, EventType::Notice, r#"{"a":1}"#).frame_as("x"), two.frame_as("x"));
    }

    #[test]
    fn no_reader_finds_the_end_of_a_line_within_the_data() {
        let event = Event::new(7, EventType::MessageNew, "{\"content\":\"a\u{2028}b\u{2029}c\u{85}d é\"}");
        assert_eq!(event.data(), r#"{"content":"a\u2028b\u2029c\u0085d é"}"#);
        let data: serde_json::Value = serde_json::from_str(event.data()).unwrap();
        assert_eq!(data["content"], "a\u{2028}b\u{2029}c\u{85}d é");
    }
}
