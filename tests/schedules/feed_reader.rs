//! A reader of the feed on each replica, and the comparison of what it received with the database.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ridewire::domain::EventType;
use ridewire::realtime::{FeedReader, RideItem, ShardLog};
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
    /// Whether it received a position after a greater one, or twice.
    is_out_of_order: bool,
}

impl FeedTranscript {
    /// Returns the part after a position.
    pub(crate) fn after(&self, position: i64) -> Self {
        let events = self.events.range(position + 1..).map(|(position, event)| (*position, event.clone())).collect();
        Self { from: self.from.max(position), events, is_out_of_order: self.is_out_of_order }
    }

    fn push(&mut self, position: i64, data: &Value) {
        self.is_out_of_order |= self.events.last_key_value().is_some_and(|(last, _)| *last >= position);
        let topic = data["topic"].as_str().unwrap_or_default().to_owned();
        self.events.insert(position, (topic, data["seq"].as_i64().unwrap_or_default()));
    }

    /// Returns the events on the feed that the reader has not received, unless their log was deleted.
    fn missing(&self, database: &DatabaseState) -> Vec<(i64, String, i64)> {
        let is_in_log = |topic: &str, seq: i64| {
            database.logs.get(topic).is_some_and(|log| log.iter().any(|event| event.seq == seq))
        };
        // A ride that was deleted and created again has another event with the same seq later.
        let is_replaced = |position: i64, topic: &str, seq: i64| {
            database.positions.range(position + 1..).any(|(_, later)| later.0 == topic && later.1 <= seq)
        };
        let missing = database.positions.range(self.from + 1..).filter(|(position, (topic, seq))| {
            !self.events.contains_key(position) && is_in_log(topic, *seq) && !is_replaced(**position, topic, *seq)
        });
        missing.map(|(position, (topic, seq))| (*position, topic.clone(), *seq)).collect()
    }

    /// Whether the reader has received everything that is on the feed.
    pub(crate) fn is_complete(&self, database: &DatabaseState) -> bool {
        self.missing(database).is_empty()
    }

    /// Checks that the reader received what is on the feed, in its order.
    pub(crate) fn check(&self, database: &DatabaseState, violations: &mut Violations) {
        let missing = self.missing(database);
        violations.check(missing.is_empty() && !self.is_out_of_order, ViolationKind::Feed, || {
            format!("a reader of the feed misses {missing:?}; out of order: {}", self.is_out_of_order)
        });
        for (position, event) in &self.events {
            let stored = database.positions.get(position);
            // The database no longer has events of an erased user, and this state none of other runs.
            violations.check(stored.is_none_or(|stored| stored == event), ViolationKind::Feed, || {
                format!("a reader of the feed received {event:?} at {position}, not {stored:?}")
            });
        }
    }
}

/// Reads the feed from its end, forever. After a failover the reader begins again.
pub(crate) async fn read_feed(log: ShardLog, transcript: Arc<Mutex<FeedTranscript>>) {
    loop {
        let Ok((mut reader, start)) = FeedReader::open(&log, None, || ()).await else {
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
                // The log of a deleted ride.
                RideItem::Gap(_) => {}
                _ => break,
            }
        }
    }
}
