//! An open event stream.

use std::collections::VecDeque;

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::PATIENCE;
use super::sse::{Item, Parser};

/// An event of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub kind: String,
    pub data: Value,
    /// The data as it came.
    pub text: String,
    /// The `id` field, if it had one.
    pub id: Option<String>,
}

impl Event {
    /// The id as a seq.
    #[track_caller]
    pub fn seq(&self) -> i64 {
        self.id.as_ref().and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("no seq: {self:?}"))
    }
}

/// An open event stream, and all that it has said.
#[derive(Debug)]
pub struct Stream {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// What an `EventSource` would send as `Last-Event-ID`.
    pub last_id: String,
    pub comments: usize,
    pub retries: Vec<u64>,
    asked: String,
    response: reqwest::Response,
    parser: Parser,
    ready: VecDeque<Event>,
    /// The last few things that were handed out, for failures.
    seen: VecDeque<String>,
    has_ended: bool,
}

impl Stream {
    pub async fn open(request: reqwest::RequestBuilder) -> Self {
        let (client, request) = request.build_split();
        let request = request.expect("a request");
        let asked = format!("{} Last-Event-ID: {:?}", request.url(), request.headers().get("last-event-id"));
        let response = tokio::time::timeout(PATIENCE, client.execute(request)).await;
        let response = response.unwrap_or_else(|_| panic!("{asked}: no answer")).expect("an answer");
        let (status, headers) = (response.status(), response.headers().clone());
        if status == StatusCode::OK {
            assert_eq!(headers["content-type"], "text/event-stream", "{asked}");
        }
        Self {
            status,
            headers,
            last_id: String::new(),
            comments: 0,
            retries: Vec::new(),
            asked,
            response,
            parser: Parser::default(),
            ready: VecDeque::new(),
            seen: VecDeque::new(),
            has_ended: false,
        }
    }

    /// This stream, if it has this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.asked);
        self
    }

    /// Reads more. `false`: there is no more.
    async fn read(&mut self, deadline: Instant) -> bool {
        let chunk = timeout_at(deadline, self.response.chunk()).await;
        let chunk = chunk.unwrap_or_else(|_| panic!("{}: nothing more comes; seen: {:#?}", self.asked, self.seen));
        // A server that is killed cuts the stream off without an end.
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
                    self.ready.push_back(Event { kind, data, text, id });
                }
            }
        }
        true
    }

    fn note(&mut self, event: &Event) {
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

    /// The next event, or `None` at the end of the stream.
    pub async fn try_next(&mut self) -> Option<Event> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.note(&event);
                return Some(event);
            }
            if self.has_ended || !self.read(deadline).await {
                return None;
            }
        }
    }

    /// The next event.
    pub async fn next_event(&mut self) -> Event {
        let next = self.try_next().await;
        next.unwrap_or_else(|| panic!("{}: the stream has ended; seen: {:#?}", self.asked, self.seen))
    }

    /// The next event, which must be of this type.
    pub async fn next_of(&mut self, kind: &str) -> Event {
        let event = self.next_event().await;
        assert_eq!(event.kind, kind, "{}: {event:?}; seen: {:#?}", self.asked, self.seen);
        event
    }

    /// The next event, which must be a `stream:sync`: its data.
    pub async fn next_sync(&mut self) -> Value {
        let event = self.next_of("stream:sync").await;
        assert_eq!(event.data["cursor"], event.id.as_deref().unwrap_or("no id"), "{event:?}");
        event.data
    }

    /// Skips everything before the next event of this type.
    pub async fn find(&mut self, kind: &str) -> Event {
        loop {
            let event = self.next_event().await;
            if event.kind == kind {
                return event;
            }
        }
    }

    /// The next comment, which must come before any event.
    pub async fn next_comment(&mut self, patience: std::time::Duration) {
        let (before, deadline) = (self.comments, Instant::now() + patience);
        while self.comments == before {
            assert!(self.ready.is_empty(), "{}: {:?}", self.asked, self.ready);
            assert!(self.read(deadline).await, "{}: the stream has ended", self.asked);
        }
    }

    /// All events up to the end of the stream, which must come, and not in the middle of one.
    pub async fn until_end(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.try_next().await {
            events.push(event);
        }
        assert!(self.parser.is_between_events(), "{}: cut off: {:?}", self.asked, self.parser);
        events
    }
}
