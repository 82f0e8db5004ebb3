//! A parser of event streams (HTML standard, section 9.2.6). It is strict where the standard is lenient: input that the server
//! has no reason to send fails the test.

/// An item of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A comment: a line that begins with a colon.
    Comment(String),
    /// `retry:`, in milliseconds.
    Retry(u64),
    /// An event: its type, its data, the last event id after it, and the `id` field if this block had one.
    Event { kind: String, data: String, last_id: String, id: Option<String> },
}

/// An incremental parser.
#[derive(Debug, Default)]
pub struct Parser {
    buffer: Vec<u8>,
    last_id: String,
    id: Option<String>,
    kind: Option<String>,
    data: Option<String>,
}

impl Parser {
    /// Appends bytes and returns the items that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Item> {
        self.buffer.extend_from_slice(bytes);
        let mut items = Vec::new();
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).take(end).collect();
            let line = String::from_utf8(line).expect("a stream is UTF-8");
            assert!(!line.contains('\r'), "a carriage return would end a line: {line:?}");
            items.extend(self.line(&line));
        }
        items
    }

    /// Returns whether no incomplete event is buffered.
    pub fn is_between_events(&self) -> bool {
        self.buffer.is_empty() && self.id.is_none() && self.kind.is_none() && self.data.is_none()
    }

    fn line(&mut self, line: &str) -> Option<Item> {
        if line.is_empty() {
            return self.dispatch();
        }
        if let Some(comment) = line.strip_prefix(':') {
            return Some(Item::Comment(comment.to_owned()));
        }
        let (field, value) = line.split_once(':').unwrap_or_else(|| panic!("a field without a value: {line:?}"));
        let value = value.strip_prefix(' ').unwrap_or(value);
        let once = |slot: &mut Option<String>| {
            assert!(slot.replace(value.to_owned()).is_none(), "twice in one event: {line:?}");
        };
        match field {
            "event" => once(&mut self.kind),
            // The standard allows several lines of data; Ridewire sends one line of JSON.
            "data" => once(&mut self.data),
            "id" => {
                assert!(!value.contains('\0'), "an id with U+0000 is ignored: {line:?}");
                once(&mut self.id);
            }
            "retry" => {
                let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                assert!(is_number, "a retry that is no number is ignored: {line:?}");
                return Some(Item::Retry(value.parse().expect("milliseconds")));
            }
            _ => panic!("an unknown field is ignored: {line:?}"),
        }
        None
    }

    fn dispatch(&mut self) -> Option<Item> {
        let (id, kind, data) = (self.id.take(), self.kind.take(), self.data.take());
        if let Some(id) = &id {
            self.last_id.clone_from(id);
        }
        let Some(data) = data else {
            assert!(id.is_none() && kind.is_none(), "an event without data is dropped: {kind:?} {id:?}");
            return None;
        };
        let kind = kind.expect("every event has a type");
        Some(Item::Event { kind, data, last_id: self.last_id.clone(), id })
    }
}
