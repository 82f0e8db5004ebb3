//! A reader of the feed on each replica, and the comparison of what it received with the database.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ridewire::domain::EventType;
use ridewire::realtime::{FeedReader, Hub, RideItem};
use ridewire::store::Store;
use serde_json::Value;
use tokio::time::sleep;

use crate::check::{ViolationKind, Violations};
use crate::database_state::DatabaseState;

/// Types of events that no log has.
const ON_FEED_ALONE: [EventType; 2] = [EventType::MessageUndelivered, EventType::MessageFlagged];

/// What a reader of the feed received.
#[derive(Debug, Clone, Default)]
pub(crate) struct FeedTranscript {
    /// The position after which it began.
    from: i64,
    /// The topic and the seq at each position.
    events: BTreeMap<i64, (String, i64)>,
    /// Whether it received a gap, or a position out of order.
    has_fault: bool,
}

impl FeedTranscript {
    /// Returns the part after a position.
    pub(crate) fn after(&self, position: i64) -> Self {
        let events = self.events.range(position + 1..).map(|(position, event)| (*position, event.clone())).collect();
        Self { from: self.from.max(position), events, has_fault: self.has_fault }
    }

    fn push(&mut self, position: i64, data: &Value) {
        self.has_fault |= self.events.last_key_value().is_some_and(|(last, _)| *last >= position);
        let topic = data["topic"].as_str().unwrap_or_default().to_owned();
        self.events.insert(position, (topic, data["seq"].as_i64().unwrap_or_default()));
    }

    /// Whether the reader has received everything that is on the feed.
    pub(crate) fn is_complete(&self, database: &DatabaseState) -> bool {
        database.positions.range(self.from + 1..).all(|(position, _)| self.events.contains_key(position))
    }

    /// Checks that the reader received exactly what is on the feed. The events of an erased user are no longer there.
    pub(crate) fn check(&self, prefix: &str, database: &DatabaseState, violations: &mut Violations) {
        let ride = format!("ride/{prefix}");
        let expected: Vec<_> = database.positions.range(self.from + 1..).collect();
        let is_expected = |(position, event): &(&i64, &(String, i64))| {
            event.0.starts_with(&ride) || database.positions.contains_key(position)
        };
        let received: Vec<_> = self.events.iter().filter(is_expected).collect();
        violations.check(received == expected && !self.has_fault, ViolationKind::Feed, || {
            format!(
                "a reader of the feed from {} received {received:?}, not {expected:?}; fault: {}",
                self.from, self.has_fault
            )
        });
    }
}

/// Reads the feed from its end, forever. After a failover the reader begins again.
pub(crate) async fn read_feed(hub: Arc<Hub>, store: Arc<Store>, transcript: Arc<Mutex<FeedTranscript>>) {
    loop {
        let Ok((mut reader, start)) = FeedReader::open(&hub, &store, None, || ()).await else {
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        *transcript.lock().unwrap() = FeedTranscript { from: start.cursor, ..FeedTranscript::default() };
        loop {
            match reader.next(100).await {
                RideItem::Events(events) => {
                    let mut transcript = transcript.lock().unwrap();
                    for event in events.iter().filter(|event| !ON_FEED_ALONE.contains(&event.kind)) {
                        transcript.push(event.seq, &serde_json::from_str(event.data()).unwrap());
                    }
                }
                RideItem::Gap(_) => transcript.lock().unwrap().has_fault = true,
                _ => break,
            }
        }
    }
}
