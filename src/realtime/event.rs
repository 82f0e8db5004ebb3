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
    data: Range<usize>,
}

impl Event {
    /// Encodes an event. `data` is one line of JSON, in which a line break can only be an escape, so none can
    /// end the frame early.
    pub fn new(seq: Seq, kind: EventType, data: &str) -> Self {
        let data = &*one_line(data);
        let frame = ["id: ", &seq.to_string(), "\nevent: ", kind.as_str(), "\ndata: ", data, "\n\n"].concat();
        let to = frame.len() - "\n\n".len();
        let (frame, data) = (frame.into(), to - data.len()..to);
        Self { seq, kind, arrived: Instant::now(), trace: None, frame, data }
    }

    fn traced(self, trace: Option<TraceContext>) -> Self {
        Self { trace: trace.map(Box::new), ..self }
    }

    /// The whole frame.
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// The frame with another id: that of a stream of many topics.
    pub fn frame_as(&self, id: &str) -> Bytes {
        let own_id = b"id: ".len() + self.seq.to_string().len();
        let rest = self.frame.get(own_id..).unwrap_or_default();
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
    fn no_reader_finds_the_end_of_a_line_within_the_data() {
        let event = Event::new(7, EventType::MessageNew, "{\"content\":\"a\u{2028}b\u{2029}c\u{85}d é\"}");
        assert_eq!(event.data(), r#"{"content":"a\u2028b\u2029c\u0085d é"}"#);
        let data: serde_json::Value = serde_json::from_str(event.data()).unwrap();
        assert_eq!(data["content"], "a\u{2028}b\u{2029}c\u{85}d é");
    }
}
