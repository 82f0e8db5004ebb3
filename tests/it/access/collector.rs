//! Streams that stay open during the whole test.

use std::sync::{Arc, Mutex};

use reqwest::Method;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::support::{Event, Item, Parser, User, eventually};

/// Collects all events of a stream until it is dropped.
#[derive(Debug)]
pub(crate) struct Collector {
    path: String,
    events: Arc<Mutex<Vec<Event>>>,
    reading: JoinHandle<()>,
}

impl Collector {
    /// Opens a stream and waits for its `stream:sync`.
    pub(crate) async fn start(user: &User, path: &str) -> Self {
        let mut response = user.request(Method::GET, path).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path} as {}", user.name);
        let events = Arc::new(Mutex::new(Vec::new()));
        let collected = Arc::clone(&events);
        let reading = tokio::spawn(async move {
            let mut parser = Parser::default();
            while let Ok(Some(chunk)) = response.chunk().await {
                for item in parser.push(&chunk) {
                    if let Item::Event { kind, data: text, id, .. } = item {
                        let data = serde_json::from_str(&text).unwrap();
                        collected.lock().unwrap().push(Event { kind, data, text, id });
                    }
                }
            }
        });
        let collector = Self { path: format!("{path} as {}", user.name), events, reading };
        collector.until("stream:sync", "").await;
        collector
    }

    /// Returns whether this is the stream of one ride (not a merged stream).
    pub(crate) fn is_ride_stream(&self) -> bool {
        self.path.starts_with("messages/rides/")
    }

    /// Returns the events received so far.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    /// Waits for an event of this type whose data contains `text`.
    pub(crate) async fn until(&self, kind: &str, text: &str) {
        self.until_all(&format!("{kind} with {text}"), 1, |event| event.kind == kind && event.text.contains(text))
            .await;
    }

    /// Waits until `times` typing indicators of a user have arrived.
    pub(crate) async fn until_typed(&self, user: &str, times: usize) {
        self.until_all(&format!("{user} types, {times} times"), times, |event| is_typing(event, user)).await;
    }

    /// Waits until a user is online, according to an event or to the `state` of `stream:sync`.
    pub(crate) async fn until_online(&self, user: &str) {
        self.until_all(&format!("{user} is online"), 1, |event| online(event).contains(&user)).await;
    }

    async fn until_all(&self, what: &str, times: usize, matches: impl Fn(&Event) -> bool) {
        eventually(&format!("{}: {what}", self.path), async || {
            (self.events.lock().unwrap().iter().filter(|event| matches(event)).count() >= times).then_some(())
        })
        .await;
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

/// Returns the users that an event or a `stream:sync` reports as online.
pub(crate) fn online(event: &Event) -> Vec<&str> {
    if event.kind == "presence:online" {
        return event.data["userId"].as_str().into_iter().collect();
    }
    let participants = event.data["state"]["participants"].as_array().into_iter().flatten();
    participants.filter(|entry| entry["online"] == true).filter_map(|entry| entry["userId"].as_str()).collect()
}

/// Returns whether an event reports that a user has started typing.
pub(crate) fn is_typing(event: &Event, user: &str) -> bool {
    event.kind == "typing:indicator" && event.data["userId"] == user && event.data["typing"] == Value::Bool(true)
}
