//! An open event stream.

use std::collections::VecDeque;

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::TIMEOUT;
use super::sse::{Item, Parser};

/// An event of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub kind: String,
    pub data: Value,
    /// The data as received.
    pub text: String,
    /// The `id` field, if the event had one.
    pub id: Option<String>,
}

impl Event {
    /// Returns the id as a seq.
    #[track_caller]
    pub fn seq(&self) -> i64 {
        self.id.as_ref().and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("no seq: {self:?}"))
    }
}

/// An open event stream and the state of its parser.
#[derive(Debug)]
pub struct Stream {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Whether presence events are returned. They are skipped by default, because participants go online and offline with
    /// their streams and most tests are about other events.
    pub includes_presence: bool,
    /// The `Last-Event-ID` that an `EventSource` would send.
    pub last_id: String,
    pub comments: usize,
    pub retries: Vec<u64>,
    request: String,
    response: reqwest::Response,
    parser: Parser,
    ready: VecDeque<Event>,
    /// The last returned events, for failure messages.
    seen: VecDeque<String>,
    has_ended: bool,
}

impl Stream {
    pub async fn open(request: reqwest::RequestBuilder) -> Self {
        let (client, request) = request.build_split();
        let request = request.expect("a request");
        let description = format!("{} Last-Event-ID: {:?}", request.url(), request.headers().get("last-event-id"));
        let response = tokio::time::timeout(TIMEOUT, client.execute(request)).await;
        let response = response.unwrap_or_else(|_| panic!("{description}: no response")).expect("a response");
        let (status, headers) = (response.status(), response.headers().clone());
        if status == StatusCode::OK {
            assert_eq!(headers["content-type"], "text/event-stream", "{description}");
        }
        Self {
            status,
            headers,
            includes_presence: false,
            last_id: String::new(),
            comments: 0,
            retries: Vec::new(),
            request: description,
            response,
            parser: Parser::default(),
            ready: VecDeque::new(),
            seen: VecDeque::new(),
            has_ended: false,
        }
    }

    /// Asserts the status and returns the stream.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.request);
        self
    }

    /// Reads and parses the next chunk. Returns `false` at the end of the stream.
    async fn read(&mut self, deadline: Instant) -> bool {
        let chunk = timeout_at(deadline, self.response.chunk()).await;
        let chunk = chunk.unwrap_or_else(|_| panic!("{}: timed out; last events: {:#?}", self.request, self.seen));
        // A killed server cuts the connection in the middle of the stream.
        let Ok(Some(chunk)) = chunk else {
            self.has_ended = true;
            return false;
        };
        for item in self.parser.push(&chunk) {
            match item {
                Item::Comment(_) => self.comments += 1,
                Item::Retry(milliseconds) => self.retries.push(milliseconds),
                Item::Event { kind, data: text, last_id, id } => {
                    let data = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
                    self.last_id = last_id;
                    if kind.starts_with("presence:") && !self.includes_presence {
                        continue;
                    }
                    self.ready.push_back(Event { kind, data, text, id });
                }
            }
        }
        true
    }

    fn record(&mut self, event: &Event) {
        self.seen.push_back(format!(
            "{:?} {} {}",
            event.id,
            event.kind,
            event.text.chars().take(120).collect::<String>()
        ));
        if self.seen.len() > 20 {
            self.seen.pop_front();
        }
    }

    /// Returns the next event, or `None` at the end of the stream.
    pub async fn try_next(&mut self) -> Option<Event> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.record(&event);
                return Some(event);
            }
            if self.has_ended || !self.read(deadline).await {
                return None;
            }
        }
    }

    /// Returns the next event.
    pub async fn next_event(&mut self) -> Event {
        let next = self.try_next().await;
        next.unwrap_or_else(|| panic!("{}: the stream has ended; last events: {:#?}", self.request, self.seen))
    }

    /// Returns the next event, which must be of this type.
    pub async fn next_of_type(&mut self, kind: &str) -> Event {
        let event = self.next_event().await;
        assert_eq!(event.kind, kind, "{}: {event:?}; last events: {:#?}", self.request, self.seen);
        event
    }

    /// Returns the data of the next event, which must be a `stream:sync`.
    pub async fn next_sync(&mut self) -> Value {
        let event = self.next_of_type("stream:sync").await;
        assert_eq!(event.data["cursor"], event.id.as_deref().unwrap_or("no id"), "{event:?}");
        event.data
    }

    /// Skips events up to the next one of this type and returns it.
    pub async fn find(&mut self, kind: &str) -> Event {
        loop {
            let event = self.next_event().await;
            if event.kind == kind {
                return event;
            }
        }
    }

    /// Waits for the next comment, which must arrive before any event.
    pub async fn next_comment(&mut self, timeout: std::time::Duration) {
        let (before, deadline) = (self.comments, Instant::now() + timeout);
        while self.comments == before {
            assert!(self.ready.is_empty(), "{}: {:?}", self.request, self.ready);
            assert!(self.read(deadline).await, "{}: the stream has ended", self.request);
        }
    }

    /// Returns all events up to the end of the stream. The stream must end, and not in the middle of an event.
    pub async fn until_end(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.try_next().await {
            events.push(event);
        }
        assert!(
            self.parser.is_between_events(),
            "{}: ended in the middle of an event: {:?}",
            self.request,
            self.parser
        );
        events
    }
}
