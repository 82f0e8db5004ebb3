//! A reader of an event stream, and all that it was sent.

use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::task::JoinHandle;

use crate::step::Who;
use crate::support::{Item as Parsed, Parser};

/// Something that a stream has sent.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) id: Option<String>,
    pub(crate) kind: String,
    /// As it came.
    pub(crate) text: String,
}

impl Item {
    pub(crate) fn data(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

/// How one connection went.
#[derive(Debug, Clone, Default)]
pub(crate) struct Segment {
    /// The cursor that it began with, where it went on.
    pub(crate) after: Option<String>,
    /// `None` until there is an answer.
    pub(crate) status: Option<u16>,
    pub(crate) items: Vec<Item>,
    /// Nothing more comes: it was ended by the server, if that has said so, or cut.
    pub(crate) has_ended: bool,
    /// What is wrong with what came.
    pub(crate) fault: Option<String>,
}

impl Segment {
    /// Whether the stream has begun, or has failed to.
    pub(crate) fn is_open(&self) -> bool {
        !self.items.is_empty() || self.has_ended
    }

    /// What the server said when it ended the stream.
    pub(crate) fn closing(&self) -> Option<String> {
        let last = self.items.last().filter(|item| item.kind == "stream:closing")?;
        last.data()["reason"].as_str().map(str::to_owned)
    }

    pub(crate) fn last_id(&self) -> Option<&str> {
        self.items.iter().rev().find_map(|item| item.id.as_deref()).or(self.after.as_deref())
    }
}

/// What a reader got, over all its connections.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    pub(crate) who: Who,
    /// `None`: everything of theirs.
    pub(crate) ride: Option<usize>,
    pub(crate) segments: Vec<Segment>,
}

/// A reader, over all its connections.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) who: Who,
    pub(crate) ride: Option<usize>,
    done: Vec<Segment>,
    current: Arc<Mutex<Segment>>,
    task: JoinHandle<()>,
}

impl Reader {
    /// Opens a stream, which goes on where the one before ended. `request` is given what that is.
    pub(crate) fn open(
        (who, ride): (Who, Option<usize>),
        request: impl FnOnce(Option<&str>) -> reqwest::RequestBuilder,
        before: Option<Self>,
    ) -> Self {
        // What comes on the connection before from now on is lost on its way.
        let done = before.map_or_else(Vec::new, |before| before.segments());
        let after = done.iter().rev().find_map(Segment::last_id).map(str::to_owned);
        let request = request(after.as_deref());
        let current = Arc::new(Mutex::new(Segment { after, ..Segment::default() }));
        let task = tokio::spawn(read(request, Arc::clone(&current)));
        Self { who, ride, done, current, task }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.current.lock().unwrap().is_open()
    }

    /// How much has come on the present connection.
    pub(crate) fn count(&self) -> usize {
        self.current.lock().unwrap().items.len()
    }

    fn segments(&self) -> Vec<Segment> {
        let mut segments = self.done.clone();
        segments.push(self.current.lock().unwrap().clone());
        segments
    }

    /// What came so far.
    pub(crate) fn reading(&self) -> Reading {
        Reading { who: self.who, ride: self.ride, segments: self.segments() }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read(request: reqwest::RequestBuilder, segment: Arc<Mutex<Segment>>) {
    let outcome = follow(request, &segment).await;
    let mut segment = segment.lock().unwrap();
    segment.has_ended = true;
    segment.fault = outcome.err();
}

async fn follow(request: reqwest::RequestBuilder, segment: &Mutex<Segment>) -> Result<(), String> {
    // A replica that is killed does not answer.
    let Ok(mut response) = request.send().await else { return Ok(()) };
    segment.lock().unwrap().status = Some(response.status().as_u16());
    if response.status() != 200 {
        return Ok(());
    }
    let mut parser = Parser::default();
    while let Ok(Some(chunk)) = response.chunk().await {
        let parsed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| parser.push(&chunk)));
        for item in parsed.map_err(|_| "a stream that cannot be parsed".to_owned())? {
            if let Parsed::Event { kind, data: text, id, .. } = item {
                segment.lock().unwrap().items.push(Item { id, kind, text });
            }
        }
    }
    Ok(())
}
