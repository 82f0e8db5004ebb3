//! Who is typing, on all rides: remembered for seconds, whether or not anybody here follows the ride, since a poll
//! that comes by must find it.
//!
//! Every replica ends it by itself, so nobody types for ever when the replica where they did has gone.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use crate::domain::{EventType, Seq, Signal, Time, Topic, UserId};

/// How long somebody types who does not say so again.
const LASTS: Duration = Duration::from_secs(6);

/// Who says so again within this says nothing.
const QUIET: Duration = Duration::from_secs(3);

/// All who are typing.
#[derive(Debug, Default)]
pub(super) struct Typing {
    typists: Mutex<HashMap<(Topic, UserId), Typist>>,
    /// The last version that was given here.
    last_version: AtomicI64,
}

#[derive(Debug)]
struct Typist {
    until: Instant,
    version: i64,
    seq: Seq,
}

#[derive(Deserialize)]
struct Data {
    typing: bool,
}

impl Typing {
    fn all(&self) -> MutexGuard<'_, HashMap<(Topic, UserId), Typist>> {
        self.typists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what is told of somebody.
    pub(super) fn hear(&self, signal: &Signal) {
        let Ok(Data { typing }) = serde_json::from_str(&signal.data) else { return };
        let key = (signal.topic.clone(), signal.user.clone());
        let mut all = self.all();
        if all.get(&key).is_some_and(|known| known.version >= signal.version) {
            return;
        }
        if typing {
            let typist = Typist { until: Instant::now() + LASTS, version: signal.version, seq: signal.seq };
            all.insert(key, typist);
        } else {
            all.remove(&key);
        }
    }

    /// A version for what is said `now`, by the database's clock: what is said on two replicas is compared by it, and their own
    /// clocks may differ. What is said here one after the other has versions that grow.
    pub(super) fn next_version(&self, now: Option<Time>) -> i64 {
        let now = now.map_or(0, |now| now.timestamp().as_microsecond());
        let next = |last: i64| Some(now.max(last + 1));
        let before = self.last_version.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        before.map_or(now, |before| now.max(before + 1))
    }

    /// Whether it would be news that somebody types.
    pub(super) fn is_news(&self, topic: &Topic, user: &UserId) -> bool {
        let all = self.all();
        let known = all.get(&(topic.clone(), user.clone()));
        known.is_none_or(|known| known.until <= Instant::now() + (LASTS - QUIET))
    }

    /// Whether somebody types now, and since which version and place in the log.
    pub(super) fn version(&self, topic: &Topic, user: &UserId) -> Option<(i64, Seq)> {
        let all = self.all();
        let known = all.get(&(topic.clone(), user.clone()))?;
        (known.until > Instant::now()).then_some((known.version, known.seq))
    }

    /// Who types on a topic, as of a place of its log which is `visible`.
    pub(super) fn on(&self, topic: &Topic, visible: impl Fn(Seq) -> bool) -> Vec<UserId> {
        let now = Instant::now();
        let all = self.all();
        let is_typing = |typist: &Typist| typist.until > now && visible(typist.seq);
        let typists = all.iter().filter(|((on, _), typist)| on == topic && is_typing(typist));
        let mut typists: Vec<_> = typists.map(|((_, user), _)| user.clone()).collect();
        typists.sort_unstable();
        typists
    }

    /// Forgets those whose time is over, and says of each that they have stopped. Also when the next one's is.
    pub(super) fn end_overdue(&self) -> (Vec<Signal>, Option<Instant>) {
        let now = Instant::now();
        let mut all = self.all();
        let over = all.extract_if(|_, typist| typist.until <= now);
        // One more than what it ends, the same on every replica.
        let ended =
            over.map(|((topic, user), typist)| signal(topic, user, false, typist.seq, typist.version + 1)).collect();
        let next = all.values().map(|typist| typist.until).min();
        (ended, next)
    }
}

/// Somebody types, or has stopped. `version` is that of the signal.
pub(super) fn signal(topic: Topic, user: UserId, typing: bool, seq: Seq, version: i64) -> Signal {
    // No escaping: the characters of an id are all plain.
    let ride = topic.ride_id().unwrap_or_default();
    let data = format!(r#"{{"rideId":"{ride}","userId":"{user}","typing":{typing}}}"#);
    Signal { topic, kind: EventType::TypingIndicator, user, version, seq, data }
}
