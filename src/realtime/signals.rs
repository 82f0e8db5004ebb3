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
        let Some(kind) = signal.kind.signal() else { return false };
        let key = (kind, signal.user.clone());
        if self.known.get(&key).is_some_and(|known| known.version >= signal.version) {
            return false;
        }
        self.serial += 1;
        let frame = format!("event: {}\ndata: {}\n\n", signal.kind.as_str(), signal.data).into();
        let value = Value { kind: signal.kind, user: signal.user.clone(), seq: signal.seq, frame };
        self.known.insert(key, Known { version: signal.version, serial: self.serial, value });
        true
    }

    /// Takes values that a reader has just found in the database, and knows from there; those who read already may hear
    /// of them here first. Returns the number of the last change that this reader knows, who knew those up to `read`.
    pub(super) fn seed(&mut self, values: &[Signal], read: u64) -> u64 {
        for value in values {
            self.offer(value);
        }
        let is_one = |(kind, user): &(SignalKind, UserId), known: &Known, value: &Signal| {
            value.kind.signal() == Some(*kind) && value.user == *user && value.version == known.version
        };
        let mut unread = self.known.iter().filter(|(_, known)| known.serial > read);
        let knows_all = unread.all(|(key, known)| values.iter().any(|value| is_one(key, known, value)));
        if knows_all { self.serial } else { read }
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
    fn what_a_reader_began_with_is_news_to_the_others_alone() {
        let mut signals = Signals::default();
        let first = signals.seed(&[signal(EventType::RideLocation, "d", 5)], 0);
        assert_eq!(since(&signals, first), Vec::<String>::new());
        // One that comes later finds what nobody has been told of yet.
        let second = signals.seed(&[signal(EventType::RideLocation, "d", 6)], first);
        assert_eq!(since(&signals, second), Vec::<String>::new());
        assert_eq!(since(&signals, first), ["data: 6"]);
        assert!(!signals.offer(&signal(EventType::RideLocation, "d", 6)), "told already");
    }

    #[test]
    fn what_comes_while_a_reader_begins_is_not_taken_for_what_it_began_with() {
        let mut signals = Signals::default();
        let registered = signals.serial();
        signals.offer(&signal(EventType::TypingIndicator, "d", 1));
        signals.offer(&signal(EventType::RideLocation, "d", 7));
        let began = signals.seed(&[signal(EventType::RideLocation, "d", 6)], registered);
        assert_eq!(since(&signals, began), ["data: 1", "data: 7"]);
        let began = signals.seed(&[signal(EventType::RideLocation, "d", 7)], registered);
        assert_eq!(since(&signals, began), ["data: 1", "data: 7"], "7 again rather than not 1");
    }
}
