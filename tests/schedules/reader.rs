//! A reader of an event stream, and everything that it has received.

use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::task::JoinHandle;

use crate::step::Actor;
use crate::support::{Item as Parsed, Parser};

/// An event on a stream.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) id: Option<String>,
    pub(crate) kind: String,
    /// The data as received.
    pub(crate) text: String,
}

impl Item {
    pub(crate) fn data(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

/// What a reader has received on one connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Segment {
    /// The cursor from which it resumed.
    pub(crate) after: Option<String>,
    /// `None` until there is a response.
    pub(crate) status: Option<u16>,
    pub(crate) items: Vec<Item>,
    /// Whether the connection has ended: closed by the server, or cut.
    pub(crate) has_ended: bool,
    /// Why the stream could not be parsed.
    pub(crate) error: Option<String>,
}

impl Segment {
    /// Whether the stream has begun or has ended.
    pub(crate) fn is_open(&self) -> bool {
        !self.items.is_empty() || self.has_ended
    }

    /// Returns the reason that the server sent before it ended the stream.
    pub(crate) fn closing(&self) -> Option<String> {
        let last = self.items.last().filter(|item| item.kind == "stream:closing")?;
        last.data()["reason"].as_str().map(str::to_owned)
    }

    pub(crate) fn last_id(&self) -> Option<&str> {
        self.items.iter().rev().find_map(|item| item.id.as_deref()).or(self.after.as_deref())
    }
}

/// What a reader has received on all its connections.
#[derive(Debug, Clone)]
pub(crate) struct Transcript {
    pub(crate) actor: Actor,
    /// `None` for the merged stream.
    pub(crate) ride: Option<usize>,
    pub(crate) segments: Vec<Segment>,
}

/// A reader with its connection.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) actor: Actor,
    pub(crate) ride: Option<usize>,
    done: Vec<Segment>,
    current: Arc<Mutex<Segment>>,
    task: JoinHandle<()>,
}

impl Reader {
    /// Opens a stream, which resumes after the stream `before`. `request` receives the cursor to resume from.
    pub(crate) fn open(
        (actor, ride): (Actor, Option<usize>),
        request: impl FnOnce(Option<&str>) -> reqwest::RequestBuilder,
        before: Option<Self>,
    ) -> Self {
        // Events that arrive on the old connection from now on are lost.
        let done = before.map_or_else(Vec::new, |before| before.segments());
        let after = done.iter().rev().find_map(Segment::last_id).map(str::to_owned);
        let request = request(after.as_deref());
        let current = Arc::new(Mutex::new(Segment { after, ..Segment::default() }));
        let task = tokio::spawn(read(request, Arc::clone(&current)));
        Self { actor, ride, done, current, task }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.current.lock().unwrap().is_open()
    }

    /// Returns the number of items on the current connection.
    pub(crate) fn count(&self) -> usize {
        self.current.lock().unwrap().items.len()
    }

    fn segments(&self) -> Vec<Segment> {
        let mut segments = self.done.clone();
        segments.push(self.current.lock().unwrap().clone());
        segments
    }

    /// Returns what was received so far.
    pub(crate) fn transcript(&self) -> Transcript {
        Transcript { actor: self.actor, ride: self.ride, segments: self.segments() }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read(request: reqwest::RequestBuilder, segment: Arc<Mutex<Segment>>) {
    let outcome = receive(request, &segment).await;
    let mut segment = segment.lock().unwrap();
    segment.has_ended = true;
    segment.error = outcome.err();
}

async fn receive(request: reqwest::RequestBuilder, segment: &Mutex<Segment>) -> Result<(), String> {
    // A killed replica sends no response.
    let Ok(mut response) = request.send().await else { return Ok(()) };
    segment.lock().unwrap().status = Some(response.status().as_u16());
    if response.status() != 200 {
        return Ok(());
    }
    let mut parser = Parser::default();
    while let Ok(Some(chunk)) = response.chunk().await {
        let parsed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| parser.push(&chunk)));
        for item in parsed.map_err(|_| "the stream cannot be parsed".to_owned())? {
            if let Parsed::Event { kind, data: text, id, .. } = item {
                segment.lock().unwrap().items.push(Item { id, kind, text });
            }
        }
    }
    Ok(())
}
