//! The last values of a topic that somebody here is reading.
//!
//! Conflated, not queued: a value takes the place of the one before, so a slow reader that asks again gets the
//! last of each, and what it costs is bounded by the people of a ride. Each change has a serial number here, by
//! which a reader knows what it has not seen.

use std::collections::HashMap;

use bytes::Bytes;

use crate::domain::{EventType, Seq, Signal, SignalKind, UserId};

/// A value as a frame of a stream; it has no id, since it is not in the log.
#[derive(Debug, Clone)]
pub struct Value {
    /// What it is about.
    pub kind: EventType,
    /// Whose it is.
    pub user: UserId,
    /// The place in the log that it was true at.
    pub seq: Seq,
    /// The frame, shared by all readers.
    pub frame: Bytes,
}

/// The last value of each kind and user.
#[derive(Debug, Default)]
pub(super) struct Signals {
    known: HashMap<(SignalKind, UserId), Known>,
    serial: u64,
}

#[derive(Debug)]
struct Known {
    version: i64,
    serial: u64,
    value: Value,
}

impl Signals {
    /// Takes a value, unless a later one is known. Returns whether it is news.
    pub(super) fn offer(&mut self, signal: &Signal) -> bool {
        self.take(signal, true)
    }

    /// Takes a value that readers know already, from where they have begun.
    pub(super) fn seed(&mut self, signal: &Signal) {
        self.take(signal, false);
    }

    fn take(&mut self, signal: &Signal, is_news: bool) -> bool {
        let Some(kind) = signal.kind.signal() else { return false };
        let key = (kind, signal.user.clone());
        if self.known.get(&key).is_some_and(|known| known.version >= signal.version) {
            return false;
        }
        self.serial += u64::from(is_news);
        // Seeds are older than all news.
        let serial = if is_news { self.serial } else { 0 };
        let frame = format!("event: {}\ndata: {}\n\n", signal.kind.as_str(), signal.data).into();
        let value = Value { kind: signal.kind, user: signal.user.clone(), seq: signal.seq, frame };
        self.known.insert(key, Known { version: signal.version, serial, value });
        is_news
    }

    /// The number of the last change.
    pub(super) fn serial(&self) -> u64 {
        self.serial
    }

    /// What has changed since, in the order of the changes.
    pub(super) fn since(&self, serial: u64) -> Vec<Value> {
        let mut news: Vec<_> = self.known.values().filter(|known| known.serial > serial).collect();
        news.sort_unstable_by_key(|known| known.serial);
        news.into_iter().map(|known| known.value.clone()).collect()
    }

    /// The sum of the versions of a kind.
    pub(super) fn total(&self, kind: SignalKind) -> i64 {
        self.versions(kind).sum()
    }

    /// The version of the last value of a kind; 0 where none is known.
    pub(super) fn version(&self, kind: SignalKind) -> i64 {
        self.versions(kind).max().unwrap_or(0)
    }

    fn versions(&self, kind: SignalKind) -> impl Iterator<Item = i64> {
        self.known.iter().filter(move |((of, _), _)| *of == kind).map(|(_, known)| known.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{RideId, Topic};

    fn signal(kind: EventType, user: &str, version: i64) -> Signal {
        let (topic, user) = (Topic::ride(&RideId::parse("r").unwrap()), UserId::parse(user).unwrap());
        Signal { topic, kind, user, version, seq: 1, data: format!("{version}") }
    }

    fn since(signals: &Signals, serial: u64) -> Vec<String> {
        let text = |value: &Value| String::from_utf8_lossy(&value.frame).lines().nth(1).unwrap().to_owned();
        signals.since(serial).iter().map(text).collect()
    }

    #[test]
    fn the_last_value_of_each_counts_and_a_late_one_does_not() {
        let mut signals = Signals::default();
        assert!(signals.offer(&signal(EventType::RideLocation, "d", 5)));
        assert!(!signals.offer(&signal(EventType::RideLocation, "d", 4)), "late");
        assert!(!signals.offer(&signal(EventType::RideLocation, "d", 5)), "again");
        assert!(signals.offer(&signal(EventType::TypingIndicator, "d", 1)));
        assert!(signals.offer(&signal(EventType::RideLocation, "d", 6)));
        assert_eq!(since(&signals, 0), ["data: 1", "data: 6"], "5 was replaced");
        assert_eq!(since(&signals, signals.serial() - 1), ["data: 6"]);
        assert_eq!(since(&signals, signals.serial()), Vec::<String>::new());
        assert_eq!(signals.version(SignalKind::Location), 6);
    }

    #[test]
    fn what_readers_began_with_is_no_news() {
        let mut signals = Signals::default();
        signals.seed(&signal(EventType::RideLocation, "d", 5));
        assert_eq!(since(&signals, 0), Vec::<String>::new());
        assert!(!signals.offer(&signal(EventType::RideLocation, "d", 5)));
        assert!(signals.offer(&signal(EventType::RideLocation, "d", 6)));
        assert_eq!(since(&signals, 0), ["data: 6"]);
    }
}
