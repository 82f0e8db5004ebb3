//! Typing indicators of all rides. A replica keeps them for some seconds, whether or not it has readers of the ride, because a later poll
//! must find them.
//!
//! Every replica ends an indicator by itself. So it also ends if the replica that received it has stopped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use crate::domain::{EventType, Seq, StateUpdate, Time, Topic, UserId};

/// How long a typing indicator lasts after its last refresh.
const TTL: Duration = Duration::from_secs(6);

/// How long after an update a refresh is not published again.
const REFRESH_INTERVAL: Duration = Duration::from_secs(3);

/// The typing indicators of all rides.
#[derive(Debug, Default)]
pub(super) struct TypingTracker {
    entries: Mutex<HashMap<(Topic, UserId), TypingEntry>>,
    /// The last version that this replica has assigned.
    last_version: AtomicI64,
}

#[derive(Debug)]
struct TypingEntry {
    until: Instant,
    version: i64,
    seq: Seq,
}

#[derive(Deserialize)]
struct Data {
    typing: bool,
}

impl TypingTracker {
    fn entries(&self) -> MutexGuard<'_, HashMap<(Topic, UserId), TypingEntry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies an update.
    pub(super) fn apply(&self, update: &StateUpdate) {
        let Ok(Data { typing }) = serde_json::from_str(&update.data) else { return };
        let key = (update.topic.clone(), update.user.clone());
        let mut entries = self.entries();
        if entries.get(&key).is_some_and(|entry| entry.version >= update.version) {
            return;
        }
        if typing {
            let entry = TypingEntry { until: Instant::now() + TTL, version: update.version, seq: update.seq };
            entries.insert(key, entry);
        } else {
            entries.remove(&key);
        }
    }

    /// Returns a version for an update at `now`, by the database's clock. Versions order updates of different replicas, whose own clocks
    /// may differ. Consecutive updates on one replica have growing versions.
    pub(super) fn next_version(&self, now: Option<Time>) -> i64 {
        let now = now.map_or(0, |now| now.timestamp().as_microsecond());
        let next = |last: i64| Some(now.max(last + 1));
        let before = self.last_version.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        before.map_or(now, |before| now.max(before + 1))
    }

    /// Returns whether an update that the user is typing must be published.
    pub(super) fn needs_update(&self, topic: &Topic, user: &UserId) -> bool {
        let entries = self.entries();
        let entry = entries.get(&(topic.clone(), user.clone()));
        entry.is_none_or(|entry| entry.until <= Instant::now() + (TTL - REFRESH_INTERVAL))
    }

    /// Returns the version and log position of a user's indicator, if the user is typing now.
    pub(super) fn version(&self, topic: &Topic, user: &UserId) -> Option<(i64, Seq)> {
        let entries = self.entries();
        let entry = entries.get(&(topic.clone(), user.clone()))?;
        (entry.until > Instant::now()).then_some((entry.version, entry.seq))
    }

    /// Returns the users who are typing on a topic, if the log position of their indicator is `visible`.
    pub(super) fn users_on(&self, topic: &Topic, visible: impl Fn(Seq) -> bool) -> Vec<UserId> {
        let now = Instant::now();
        let entries = self.entries();
        let is_typing = |entry: &TypingEntry| entry.until > now && visible(entry.seq);
        let on_topic = entries.iter().filter(|((on, _), entry)| on == topic && is_typing(entry));
        let mut users: Vec<_> = on_topic.map(|((_, user), _)| user.clone()).collect();
        users.sort_unstable();
        users
    }

    /// Removes expired indicators and returns the updates that end them. Also returns when the next one expires.
    pub(super) fn remove_expired(&self) -> (Vec<StateUpdate>, Option<Instant>) {
        let now = Instant::now();
        let mut entries = self.entries();
        let expired = entries.extract_if(|_, entry| entry.until <= now);
        // One more than the version that it ends: the same on every replica.
        let ended =
            expired.map(|((topic, user), entry)| to_update(topic, user, false, entry.seq, entry.version + 1)).collect();
        let next = entries.values().map(|entry| entry.until).min();
        (ended, next)
    }
}

/// Creates the update that a user types, or has stopped.
pub(super) fn to_update(topic: Topic, user: UserId, typing: bool, seq: Seq, version: i64) -> StateUpdate {
    // No escaping: ids have only plain characters.
    let ride = topic.ride_id().unwrap_or_default();
    let data = format!(r#"{{"rideId":"{ride}","userId":"{user}","typing":{typing}}}"#);
    StateUpdate { topic, kind: EventType::TypingIndicator, user, version, seq, data }
}
