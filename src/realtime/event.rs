//! An event, encoded once for all readers.

use std::borrow::Cow;
use std::ops::Range;
use std::time::Instant;

use bytes::Bytes;

use crate::domain::{EventType, NewEvent, Seq, Time, TraceContext};
use crate::store::{StoredEvent, feed_data};

/// An event of a topic, encoded as an SSE frame (HTML standard, section 9.2.5):
/// `id: 7\nevent: message:new\ndata: {…}\n\n`. Clones share the bytes.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its sequence number on its topic.
    pub seq: Seq,
    /// Its event type.
    pub kind: EventType,
    /// When this replica received it.
    pub received_at: Instant,
    /// Its trace context, if the event is sampled; few events are.
    pub trace: Option<Box<TraceContext>>,
    frame: Bytes,
    /// The end of the `id:` line in `frame`, as an offset. 0 if the frame has no `id:` line, so that several events can share it.
    id_end: usize,
    data: Range<usize>,
}

impl Event {
    /// Encodes an event. `data` is JSON. A line break in JSON is always an escape, so it cannot end the frame early.
    pub fn new(seq: Seq, kind: EventType, data: &str) -> Self {
        let data = &*one_line(data);
        let frame = ["id: ", &seq.to_string(), "\nevent: ", kind.as_str(), "\ndata: ", data, "\n\n"].concat();
        let to = frame.len() - "\n\n".len();
        let id_end =
            frame.len() - ("\nevent: ".len() + kind.as_str().len() + "\ndata: ".len() + data.len() + "\n\n".len());
        let (frame, data) = (frame.into(), to - data.len()..to);
        Self { seq, kind, received_at: Instant::now(), trace: None, frame, id_end, data }
    }

    /// Encodes an event for the feed. It was committed at `at`.
    pub(super) fn on_feed(position: Seq, event: &NewEvent, at: Time) -> Self {
        let data = feed_data(event.topic.as_str(), event.seq, at, &event.data);
        Self::new(position, event.kind, &data).traced(event.trace)
    }

    /// Removes the `id:` line, so that events with other ids can share the frame.
    fn without_id(self) -> Self {
        let id_end = self.id_end;
        let data = self.data.start - id_end..self.data.end - id_end;
        Self { frame: self.frame.slice(id_end..), id_end: 0, data, ..self }
    }

    fn traced(self, trace: Option<TraceContext>) -> Self {
        Self { trace: trace.map(Box::new), ..self }
    }

    /// Returns the frame's length in bytes.
    pub fn size(&self) -> usize {
        self.frame.len()
    }

    /// Returns the whole frame. The frame of a notice has no `id:` line. Notices are on users' topics only, and a merged stream reads those
    /// with [`Self::frame_as`].
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// Returns the frame with another id, for a merged stream.
    pub fn frame_as(&self, id: &str) -> Bytes {
        let rest = self.frame.get(self.id_end..).unwrap_or_default();
        [b"id: ", id.as_bytes(), rest].concat().into()
    }

    /// Returns the data, as JSON.
    pub fn data(&self) -> &str {
        // `frame` was built from a string, and `data` is the range of the data in it.
        self.frame.get(self.data.clone()).and_then(|data| std::str::from_utf8(data).ok()).unwrap_or("null")
    }
}

/// Escapes U+0085, U+2028 and U+2029 in JSON. The HTML standard does not treat them as line ends, but several SSE clients do (for example
/// those that use Python's `splitlines`). In JSON they can occur only inside strings, where an escape has the same meaning.
fn one_line(json: &str) -> Cow<'_, str> {
    const ENDS: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];
    if !json.contains(ENDS) {
        return Cow::Borrowed(json);
    }
    let escaped =
        ENDS.iter().fold(json.to_owned(), |json, end| json.replace(*end, &format!("\\u{:04x}", u32::from(*end))));
    Cow::Owned(escaped)
}

/// Encodes events one after the other. Consecutive notices with equal data share their bytes. So a broadcast to many connected users costs
/// memory once per batch.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    /// The last notice, and its data before encoding.
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
        let event = Event { seq, received_at: Instant::now(), ..shared.1.clone() }.traced(trace);
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
    fn an_event_is_encoded_as_one_sse_frame() {
        let event = Event::new(7, EventType::MessageNew, r#"{"content":"a\nb"}"#);
        assert_eq!(event.frame(), &Bytes::from("id: 7\nevent: message:new\ndata: {\"content\":\"a\\nb\"}\n\n"));
        assert_eq!(
            event.frame_as("abc"),
            Bytes::from("id: abc\nevent: message:new\ndata: {\"content\":\"a\\nb\"}\n\n")
        );
        assert_eq!(event.data(), r#"{"content":"a\nb"}"#);
    }

    #[test]
    fn notices_with_equal_data_share_their_bytes() {
        let mut encoder = Encoder::default();
        let mut encode = |seq, data| encoder.encode(seq, EventType::Notice, data, None);
        let (one, two, other) = (encode(7, r#"{"a":1}"#), encode(1_000, r#"{"a":1}"#), encode(8, r#"{"a":2}"#));
        assert_eq!(one.frame.as_ptr(), two.frame.as_ptr());
        assert_eq!((one.seq, two.seq, two.data(), other.data()), (7, 1_000, r#"{"a":1}"#, r#"{"a":2}"#));
        assert_eq!(two.frame_as("x"), Bytes::from("id: x\nevent: notice\ndata: {\"a\":1}\n\n"));
        assert_eq!(Event::new(7, EventType::Notice, r#"{"a":1}"#).frame_as("x"), two.frame_as("x"));
    }

    #[test]
    fn line_separators_within_the_data_are_escaped() {
        let event = Event::new(7, EventType::MessageNew, "{\"content\":\"a\u{2028}b\u{2029}c\u{85}d é\"}");
        assert_eq!(event.data(), r#"{"content":"a\u2028b\u2029c\u0085d é"}"#);
        let data: serde_json::Value = serde_json::from_str(event.data()).unwrap();
        assert_eq!(data["content"], "a\u{2028}b\u{2029}c\u{85}d é");
    }
}
