//! The last values of a topic that somebody here is reading.
//!
//! Conflated, not queued: a value takes the place of the one before, so a slow reader that asks again gets the
//! last of each, and what it costs is bounded by the people of a ride. Each change has a serial number here, by
//! which a reader knows what it has not seen.
//!
//! A value names the seq at which it was true, and a reader gets it when its cursor has reached that seq, not before: only
//! then has the reader handed out whatever ends or begins its access up to there. A value may arrive before the events up to
//! its seq do. It then waits here, beside the last value that the log has reached, and replaces that one when the log
//! has reached it too. So a value that waits takes nothing away from those who may not see it, nor from those who never will
//! (an event that ends their access lies between).

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

/// The last values of each kind and user.
#[derive(Debug, Default)]
pub(super) struct Signals {
    known: HashMap<(SignalKind, UserId), Known>,
    serial: u64,
    /// Whether a value waits beside another.
    any_waits: bool,
}

/// The most values of one kind and user: the last that the log has reached; the first that waits, so that not all wait for
/// ever where values come faster than the log is read; and the last.
const MOST: usize = 3;

/// The values of one kind and user, of which there is always one: their seqs, versions and serials all grow. All but the
/// first wait for the log.
#[derive(Debug, Default)]
struct Known(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    version: i64,
    serial: u64,
    value: Value,
}

impl Known {
    fn version(&self) -> i64 {
        self.0.last().map_or(0, |last| last.version)
    }

    /// Drops what is replaced for every reader, the log having reached `end`. Returns whether a value waits beside another.
    fn trim(&mut self, end: Seq) -> bool {
        if let Some(reached) = self.0.iter().rposition(|entry| entry.value.seq <= end) {
            self.0.drain(..reached);
        }
        while self.0.len() > MOST {
            self.0.remove(MOST - 1);
        }
        self.0.len() > 1
    }
}

impl Signals {
    /// Takes a value, unless a later one is known; the log has reached `end`. Returns whether it is news.
    pub(super) fn offer(&mut self, signal: &Signal, end: Seq) -> bool {
        let Some(kind) = signal.kind.signal() else { return false };
        let known = self.known.entry((kind, signal.user.clone())).or_default();
        if known.0.last().is_some_and(|last| last.version >= signal.version) {
            return false;
        }
        self.serial += 1;
        let frame = format!("event: {}\ndata: {}\n\n", signal.kind.as_str(), signal.data).into();
        let value = Value { kind: signal.kind, user: signal.user.clone(), seq: signal.seq, frame };
        // A later value that names no later seq replaces the earlier one for everybody.
        known.0.retain(|earlier| earlier.value.seq < signal.seq);
        known.0.push(Entry { version: signal.version, serial: self.serial, value });
        self.any_waits |= known.trim(end);
        true
    }

    /// Notes that the log has reached `end`.
    pub(super) fn reach(&mut self, end: Seq) {
        if self.any_waits {
            self.any_waits = false;
            for known in self.known.values_mut() {
                self.any_waits |= known.trim(end);
            }
        }
    }

    /// Forgets what names a seq that the log, as it turns out, does not have.
    pub(super) fn forget_after(&mut self, end: Seq) {
        let mut any = false;
        self.known.retain(|_, known| {
            any |= known.0.iter().any(|entry| entry.value.seq > end);
            known.0.retain(|entry| entry.value.seq <= end);
            !known.0.is_empty()
        });
        if any {
            // Those who waited have something to look at.
            self.serial += 1;
        }
    }

    /// Takes values that a reader has just found in the database, and knows from there; those who read already may hear
    /// of them here first. Returns the number of the last change that this reader knows, who knew those up to `read`.
    pub(super) fn seed(&mut self, values: &[Signal], read: u64, end: Seq) -> u64 {
        for value in values {
            self.offer(value, end);
        }
        let is_one = |(kind, user): &(SignalKind, UserId), known: &Known, value: &Signal| {
            value.kind.signal() == Some(*kind) && value.user == *user && value.version == known.version()
        };
        let is_unread = |known: &Known| known.0.last().is_some_and(|last| last.serial > read);
        let mut unread = self.known.iter().filter(|(_, known)| is_unread(known));
        let knows_all = unread.all(|(key, known)| values.iter().any(|value| is_one(key, known, value)));
        if knows_all { self.serial } else { read }
    }

    /// The number of the last change.
    pub(super) fn serial(&self) -> u64 {
        self.serial
    }

    /// What has changed since that a reader at `cursor` may get, in the order of the changes; and the number of the last
    /// change that this reader has no more to wait for.
    pub(super) fn since(&self, serial: u64, cursor: Seq) -> (Vec<Value>, u64) {
        let entries = || self.known.values().flat_map(|known| &known.0).filter(|entry| entry.serial > serial);
        // What came after the first that waits comes after it, so that one number says what the reader has had.
        let waits_from = entries().filter(|entry| entry.value.seq > cursor).map(|entry| entry.serial).min();
        let up_to = waits_from.map_or(self.serial, |first| first - 1);
        let last = |known: &Known| known.0.iter().rposition(|entry| entry.value.seq <= cursor);
        let reached = self.known.values().filter_map(|known| known.0.get(last(known)?));
        let mut news: Vec<_> = reached.filter(|entry| (serial + 1..=up_to).contains(&entry.serial)).collect();
        news.sort_unstable_by_key(|entry| entry.serial);
        (news.into_iter().map(|entry| entry.value.clone()).collect(), up_to)
    }

    /// The sum of the versions of a kind.
    pub(super) fn total(&self, kind: SignalKind) -> i64 {
        self.versions(kind).sum()
    }

    /// The version of the last value of a kind; 0 where none is known.
    pub(super) fn version(&self, kind: SignalKind) -> i64 {
        self.versions(kind).max().unwrap_or(0)
    }

    /// The users of whom a value of a kind is known, and its version.
    pub(super) fn versions_of(&self, kind: SignalKind) -> Vec<(UserId, i64)> {
        let of_kind = self.known.iter().filter(|((of, _), _)| *of == kind);
        of_kind.map(|((_, user), known)| (user.clone(), known.version())).collect()
    }

    /// Forgets a value that is gone from the database, unless a later one is known.
    pub(super) fn forget(&mut self, kind: SignalKind, user: &UserId, version: i64) {
        let key = (kind, user.clone());
        if self.known.get(&key).is_some_and(|known| known.version() == version) {
            self.known.remove(&key);
        }
    }

    fn versions(&self, kind: SignalKind) -> impl Iterator<Item = i64> {
        self.known.iter().filter(move |((of, _), _)| *of == kind).map(|(_, known)| known.version())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{RideId, Topic};

    fn signal(kind: EventType, user: &str, version: i64) -> Signal {
        signal_at(kind, user, version, 1)
    }

    fn signal_at(kind: EventType, user: &str, version: i64, seq: Seq) -> Signal {
        let (topic, user) = (Topic::ride(&RideId::parse("r").unwrap()), UserId::parse(user).unwrap());
        Signal { topic, kind, user, version, seq, data: format!("{version}") }
    }

    fn since(signals: &Signals, serial: u64) -> Vec<String> {
        let text = |value: &Value| String::from_utf8_lossy(&value.frame).lines().nth(1).unwrap().to_owned();
        signals.since(serial, 1).0.iter().map(text).collect()
    }

    #[test]
    fn the_last_value_of_each_counts_and_a_late_one_does_not() {
        let mut signals = Signals::default();
        assert!(signals.offer(&signal(EventType::RideLocation, "d", 5), 1));
        assert!(!signals.offer(&signal(EventType::RideLocation, "d", 4), 1), "late");
        assert!(!signals.offer(&signal(EventType::RideLocation, "d", 5), 1), "again");
        assert!(signals.offer(&signal(EventType::TypingIndicator, "d", 1), 1));
        assert!(signals.offer(&signal(EventType::RideLocation, "d", 6), 1));
        assert_eq!(since(&signals, 0), ["data: 1", "data: 6"], "5 was replaced");
        assert_eq!(since(&signals, signals.serial() - 1), ["data: 6"]);
        assert_eq!(since(&signals, signals.serial()), Vec::<String>::new());
        assert_eq!(signals.version(SignalKind::Location), 6);
    }

    #[test]
    fn what_a_reader_began_with_is_news_to_the_others_alone() {
        let mut signals = Signals::default();
        let first = signals.seed(&[signal(EventType::RideLocation, "d", 5)], 0, 1);
        assert_eq!(since(&signals, first), Vec::<String>::new());
        // One that comes later finds what nobody has been told of yet.
        let second = signals.seed(&[signal(EventType::RideLocation, "d", 6)], first, 1);
        assert_eq!(since(&signals, second), Vec::<String>::new());
        assert_eq!(since(&signals, first), ["data: 6"]);
        assert!(!signals.offer(&signal(EventType::RideLocation, "d", 6), 1), "told already");
    }

    #[test]
    fn what_comes_while_a_reader_begins_is_not_taken_for_what_it_began_with() {
        let mut signals = Signals::default();
        let registered = signals.serial();
        signals.offer(&signal(EventType::TypingIndicator, "d", 1), 1);
        signals.offer(&signal(EventType::RideLocation, "d", 7), 1);
        let began = signals.seed(&[signal(EventType::RideLocation, "d", 6)], registered, 1);
        assert_eq!(since(&signals, began), ["data: 1", "data: 7"]);
        let began = signals.seed(&[signal(EventType::RideLocation, "d", 7)], registered, 1);
        assert_eq!(since(&signals, began), ["data: 1", "data: 7"], "7 again rather than not 1");
    }

    fn places(signals: &Signals, serial: u64, cursor: Seq) -> (Vec<Seq>, u64) {
        let (values, serial) = signals.since(serial, cursor);
        (values.iter().map(|value| value.seq).collect(), serial)
    }

    #[test]
    fn a_value_waits_for_the_readers_cursor_and_replaces_nothing_before() {
        let location = |version, seq| signal_at(EventType::RideLocation, "d", version, seq);
        let mut signals = Signals::default();
        signals.offer(&location(1, 5), 5);
        signals.offer(&location(2, 7), 5);
        assert_eq!(places(&signals, 0, 4), (vec![], 0), "all of it lies ahead");
        assert_eq!(places(&signals, 0, 5), (vec![5], 1), "the last of those that may be had");
        assert_eq!(places(&signals, 0, 7), (vec![7], 2));
        assert_eq!(places(&signals, 1, 6), (vec![], 1), "still to come");
        signals.reach(7);
        assert_eq!(places(&signals, 0, 6), (vec![], 1), "5 is replaced: those who come up to 7 get that");
        assert_eq!(places(&signals, 1, 7), (vec![7], 2));
        assert_eq!(signals.version(SignalKind::Location), 2);
    }

    #[test]
    fn a_value_that_waits_holds_those_after_it_back_and_loses_none() {
        let mut signals = Signals::default();
        signals.offer(&signal_at(EventType::RideLocation, "d", 1, 9), 5);
        signals.offer(&signal_at(EventType::TypingIndicator, "r", 1, 5), 5);
        assert_eq!(places(&signals, 0, 5), (vec![], 0));
        signals.offer(&signal_at(EventType::RideLocation, "d", 2, 6), 5);
        assert_eq!(places(&signals, 0, 5), (vec![5], 2), "6, which is later, has replaced 9");
        assert_eq!(places(&signals, 2, 6), (vec![6], 3));
        // What the log turns out not to have is waited for no more.
        signals.offer(&signal_at(EventType::RideLocation, "d", 3, 99), 6);
        signals.offer(&signal_at(EventType::TypingIndicator, "r", 2, 6), 6);
        assert_eq!(places(&signals, 3, 6).0, Vec::<Seq>::new());
        signals.forget_after(6);
        assert_eq!(places(&signals, 3, 6), (vec![6], 6));
        assert_eq!(signals.version(SignalKind::Location), 2, "so a look at the database finds what there is");
    }

    #[test]
    fn values_that_come_faster_than_the_log_are_few_and_neither_the_first_nor_the_last_is_lost() {
        let mut signals = Signals::default();
        for version in 1..=50 {
            signals.offer(&signal_at(EventType::RideLocation, "d", version, version), 1);
        }
        let seqs: Vec<_> = signals.known.values().flat_map(|known| &known.0).map(|entry| entry.value.seq).collect();
        assert_eq!(seqs, [1, 2, 50]);
        assert_eq!(places(&signals, 1, 2).0, [2]);
        signals.reach(50);
        assert_eq!((places(&signals, 2, 50).0, signals.any_waits), (vec![50], false));
    }
}
