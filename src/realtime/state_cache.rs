//! The latest state updates of a topic that has readers: typing, location, presence, availability.
//!
//! Updates are conflated, not queued: an update replaces the one before it. So a slow reader gets the latest of each, and the cost is
//! bounded by the ride's participants. Each change has a serial number. A reader remembers the last serial number that it has seen.
//!
//! An update names the seq at which it was true. A reader gets it when its cursor has reached that seq, not before. Only then has the
//! reader delivered the events that end or begin its access up to that seq.
//!
//! An update may arrive before the events up to its seq do. It then waits here beside the latest update that the log has reached, and
//! replaces that one when the log has reached its seq too. So a waiting update takes nothing away from readers who may not see it yet,
//! or who will never see it (because an event in between ends their access).

use std::collections::HashMap;

use bytes::Bytes;

use crate::domain::{EventType, Seq, StateKind, StateUpdate, UserId};

/// A state update as an SSE frame. The frame has no id, because the update is not in the log.
#[derive(Debug, Clone)]
pub struct StateFrame {
    /// The event type.
    pub kind: EventType,
    /// The user that the update is about.
    pub user: UserId,
    /// The log position at which it was true.
    pub seq: Seq,
    /// The frame, shared by all readers.
    pub bytes: Bytes,
}

/// The latest updates of each kind and user.
#[derive(Debug, Default)]
pub(super) struct StateCache {
    cached: HashMap<(StateKind, UserId), CachedState>,
    serial: u64,
    /// Whether an update waits for the log beside another one.
    any_waiting: bool,
}

/// The largest number of updates of one kind and user. These are the latest that the log has reached, the first that waits, and the last.
/// The first is kept so that not all of them wait forever if updates arrive faster than the log is read.
const MAX_UPDATES: usize = 3;

/// The updates of one kind and user; there is always at least one. Their seqs, versions and serial numbers grow. All but the first wait for
/// the log.
#[derive(Debug, Default)]
struct CachedState(Vec<CachedUpdate>);

#[derive(Debug)]
struct CachedUpdate {
    version: i64,
    serial: u64,
    frame: StateFrame,
}

impl CachedState {
    fn version(&self) -> i64 {
        self.0.last().map_or(0, |last| last.version)
    }

    /// Drops updates that are replaced for every reader, given that the log has reached `end`. Returns whether an update waits.
    fn trim(&mut self, end: Seq) -> bool {
        if let Some(reached) = self.0.iter().rposition(|entry| entry.frame.seq <= end) {
            self.0.drain(..reached);
        }
        while self.0.len() > MAX_UPDATES {
            self.0.remove(MAX_UPDATES - 1);
        }
        self.0.len() > 1
    }
}

impl StateCache {
    /// Stores an update, unless a newer one is cached. The log has reached `end`. Returns whether it was stored.
    pub(super) fn offer(&mut self, update: &StateUpdate, end: Seq) -> bool {
        let Some(kind) = update.kind.state_kind() else { return false };
        // For example the location of a driver who was replaced, which arrives after that of the next driver.
        if kind.is_one_per_topic() && self.version(kind) >= update.version {
            return false;
        }
        let cached = self.cached.entry((kind, update.user.clone())).or_default();
        if cached.0.last().is_some_and(|last| last.version >= update.version) {
            return false;
        }
        self.serial += 1;
        let bytes = format!("event: {}\ndata: {}\n\n", update.kind.as_str(), update.data).into();
        let frame = StateFrame { kind: update.kind, user: update.user.clone(), seq: update.seq, bytes };
        // A newer update that names no later seq replaces the older one for every reader.
        cached.0.retain(|earlier| earlier.frame.seq < update.seq);
        cached.0.push(CachedUpdate { version: update.version, serial: self.serial, frame });
        self.any_waiting |= cached.trim(end);
        true
    }

    /// Notes that the log has reached `end`.
    pub(super) fn advance(&mut self, end: Seq) {
        if self.any_waiting {
            self.any_waiting = false;
            for cached in self.cached.values_mut() {
                self.any_waiting |= cached.trim(end);
            }
        }
    }

    /// Drops updates that name a seq which the log turned out not to have.
    pub(super) fn drop_after(&mut self, end: Seq) {
        let mut any_dropped = false;
        self.cached.retain(|_, cached| {
            any_dropped |= cached.0.iter().any(|entry| entry.frame.seq > end);
            cached.0.retain(|entry| entry.frame.seq <= end);
            !cached.0.is_empty()
        });
        if any_dropped {
            // Readers whose updates were held back must check again.
            self.serial += 1;
        }
    }

    /// Stores updates that a reader has just read from the database and delivers in its state. Readers that are already open may get them
    /// from here first. Returns the serial number from which this reader needs updates; it had seen those up to `read`.
    pub(super) fn seed(&mut self, state: &[StateUpdate], read: u64, end: Seq) -> u64 {
        for update in state {
            self.offer(update, end);
        }
        let is_latest = |(kind, user): &(StateKind, UserId), cached: &CachedState, update: &StateUpdate| {
            update.kind.state_kind() == Some(*kind) && update.user == *user && update.version == cached.version()
        };
        let is_unread = |cached: &CachedState| cached.0.last().is_some_and(|last| last.serial > read);
        let mut unread = self.cached.iter().filter(|(_, cached)| is_unread(cached));
        let has_all = unread.all(|(key, cached)| state.iter().any(|update| is_latest(key, cached, update)));
        if has_all { self.serial } else { read }
    }

    /// Returns the serial number of the last change.
    pub(super) fn serial(&self) -> u64 {
        self.serial
    }

    /// Returns the changes after `serial` that a reader at `cursor` may get, in order. Also returns the serial number up to which this
    /// reader has nothing more to get.
    pub(super) fn since(&self, serial: u64, cursor: Seq) -> (Vec<StateFrame>, u64) {
        let entries = || self.cached.values().flat_map(|cached| &cached.0).filter(|entry| entry.serial > serial);
        // Everything after the first waiting update is held back too, so that one number describes what the reader has received.
        let waiting_from = entries().filter(|entry| entry.frame.seq > cursor).map(|entry| entry.serial).min();
        let up_to = waiting_from.map_or(self.serial, |first| first - 1);
        let last = |cached: &CachedState| cached.0.iter().rposition(|entry| entry.frame.seq <= cursor);
        let reached = self.cached.values().filter_map(|cached| cached.0.get(last(cached)?));
        let mut changed: Vec<_> = reached.filter(|entry| (serial + 1..=up_to).contains(&entry.serial)).collect();
        changed.sort_unstable_by_key(|entry| entry.serial);
        (changed.into_iter().map(|entry| entry.frame.clone()).collect(), up_to)
    }

    /// Returns the sum of the versions of a kind.
    pub(super) fn version_sum(&self, kind: StateKind) -> i64 {
        self.versions(kind).sum()
    }

    /// Returns the version of the latest update of a kind, or 0 if none is cached.
    pub(super) fn version(&self, kind: StateKind) -> i64 {
        self.versions(kind).max().unwrap_or(0)
    }

    /// Returns each user who has a cached update of a kind, with its version.
    pub(super) fn versions_of(&self, kind: StateKind) -> Vec<(UserId, i64)> {
        let of_kind = self.cached.iter().filter(|((of, _), _)| *of == kind);
        of_kind.map(|((_, user), cached)| (user.clone(), cached.version())).collect()
    }

    /// Drops an update that the database no longer has, unless a newer one is cached.
    pub(super) fn drop_update(&mut self, kind: StateKind, user: &UserId, version: i64) {
        let key = (kind, user.clone());
        if self.cached.get(&key).is_some_and(|cached| cached.version() == version) {
            self.cached.remove(&key);
        }
    }

    fn versions(&self, kind: StateKind) -> impl Iterator<Item = i64> {
        self.cached.iter().filter(move |((of, _), _)| *of == kind).map(|(_, cached)| cached.version())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{RideId, Topic};

    fn update(kind: EventType, user: &str, version: i64) -> StateUpdate {
        update_at(kind, user, version, 1)
    }

    fn update_at(kind: EventType, user: &str, version: i64, seq: Seq) -> StateUpdate {
        let (topic, user) = (Topic::ride(&RideId::parse("r").unwrap()), UserId::parse(user).unwrap());
        StateUpdate { topic, kind, user, version, seq, data: format!("{version}") }
    }

    fn since(cache: &StateCache, serial: u64) -> Vec<String> {
        let text = |frame: &StateFrame| String::from_utf8_lossy(&frame.bytes).lines().nth(1).unwrap().to_owned();
        cache.since(serial, 1).0.iter().map(text).collect()
    }

    #[test]
    fn the_latest_update_of_each_kind_is_kept_and_a_late_one_is_dropped() {
        let mut cache = StateCache::default();
        assert!(cache.offer(&update(EventType::RideLocation, "d", 5), 1));
        assert!(!cache.offer(&update(EventType::RideLocation, "d", 4), 1), "late");
        assert!(!cache.offer(&update(EventType::RideLocation, "d", 5), 1), "again");
        assert!(cache.offer(&update(EventType::TypingIndicator, "d", 1), 1));
        assert!(cache.offer(&update(EventType::RideLocation, "d", 6), 1));
        assert_eq!(since(&cache, 0), ["data: 1", "data: 6"], "5 was replaced");
        assert_eq!(since(&cache, cache.serial() - 1), ["data: 6"]);
        assert_eq!(since(&cache, cache.serial()), Vec::<String>::new());
        assert_eq!(cache.version(StateKind::Location), 6);
    }

    #[test]
    fn a_late_location_of_another_driver_is_dropped_but_not_the_late_value_of_another_user() {
        let mut cache = StateCache::default();
        assert!(cache.offer(&update(EventType::RideLocation, "new", 6), 1));
        assert!(!cache.offer(&update(EventType::RideLocation, "old", 5), 1), "a ride has one location");
        assert!(cache.offer(&update(EventType::RideLocation, "newer", 7), 1));
        assert!(cache.offer(&update(EventType::TypingIndicator, "new", 6), 1));
        assert!(cache.offer(&update(EventType::TypingIndicator, "old", 5), 1));
        assert_eq!(since(&cache, 0), ["data: 6", "data: 7", "data: 6", "data: 5"]);
    }

    #[test]
    fn a_readers_initial_state_is_delivered_to_the_other_readers_only() {
        let mut cache = StateCache::default();
        let first = cache.seed(&[update(EventType::RideLocation, "d", 5)], 0, 1);
        assert_eq!(since(&cache, first), Vec::<String>::new());
        // A reader that opens later reads a newer update that no reader has received yet.
        let second = cache.seed(&[update(EventType::RideLocation, "d", 6)], first, 1);
        assert_eq!(since(&cache, second), Vec::<String>::new());
        assert_eq!(since(&cache, first), ["data: 6"]);
        assert!(!cache.offer(&update(EventType::RideLocation, "d", 6), 1), "already stored");
    }

    #[test]
    fn an_update_that_arrives_while_a_reader_opens_is_still_delivered() {
        let mut cache = StateCache::default();
        let registered = cache.serial();
        cache.offer(&update(EventType::TypingIndicator, "d", 1), 1);
        cache.offer(&update(EventType::RideLocation, "d", 7), 1);
        let began = cache.seed(&[update(EventType::RideLocation, "d", 6)], registered, 1);
        assert_eq!(since(&cache, began), ["data: 1", "data: 7"]);
        let began = cache.seed(&[update(EventType::RideLocation, "d", 7)], registered, 1);
        assert_eq!(since(&cache, began), ["data: 1", "data: 7"], "7 is repeated so that 1 is not lost");
    }

    fn seqs(cache: &StateCache, serial: u64, cursor: Seq) -> (Vec<Seq>, u64) {
        let (frames, serial) = cache.since(serial, cursor);
        (frames.iter().map(|frame| frame.seq).collect(), serial)
    }

    #[test]
    fn an_update_waits_for_the_readers_cursor_and_replaces_nothing_before() {
        let location = |version, seq| update_at(EventType::RideLocation, "d", version, seq);
        let mut cache = StateCache::default();
        cache.offer(&location(1, 5), 5);
        cache.offer(&location(2, 7), 5);
        assert_eq!(seqs(&cache, 0, 4), (vec![], 0), "both are ahead of the cursor");
        assert_eq!(seqs(&cache, 0, 5), (vec![5], 1), "the latest of those that the cursor has reached");
        assert_eq!(seqs(&cache, 0, 7), (vec![7], 2));
        assert_eq!(seqs(&cache, 1, 6), (vec![], 1), "7 is still ahead");
        cache.advance(7);
        assert_eq!(seqs(&cache, 0, 6), (vec![], 1), "5 is replaced: a reader gets 7 once its cursor is there");
        assert_eq!(seqs(&cache, 1, 7), (vec![7], 2));
        assert_eq!(cache.version(StateKind::Location), 2);
    }

    #[test]
    fn a_waiting_update_holds_back_later_ones_and_loses_none() {
        let mut cache = StateCache::default();
        cache.offer(&update_at(EventType::RideLocation, "d", 1, 9), 5);
        cache.offer(&update_at(EventType::TypingIndicator, "r", 1, 5), 5);
        assert_eq!(seqs(&cache, 0, 5), (vec![], 0));
        cache.offer(&update_at(EventType::RideLocation, "d", 2, 6), 5);
        assert_eq!(seqs(&cache, 0, 5), (vec![5], 2), "the newer update at 6 has replaced the one at 9");
        assert_eq!(seqs(&cache, 2, 6), (vec![6], 3));
        // An update is dropped if the log turns out not to have its seq.
        cache.offer(&update_at(EventType::RideLocation, "d", 3, 99), 6);
        cache.offer(&update_at(EventType::TypingIndicator, "r", 2, 6), 6);
        assert_eq!(seqs(&cache, 3, 6).0, Vec::<Seq>::new());
        cache.drop_after(6);
        assert_eq!(seqs(&cache, 3, 6), (vec![6], 6));
        assert_eq!(cache.version(StateKind::Location), 2, "so the next check reads the latest value from the database");
    }

    #[test]
    fn updates_that_arrive_faster_than_the_log_are_bounded_and_the_first_and_last_survive() {
        let mut cache = StateCache::default();
        for version in 1..=50 {
            cache.offer(&update_at(EventType::RideLocation, "d", version, version), 1);
        }
        let kept: Vec<_> = cache.cached.values().flat_map(|cached| &cached.0).map(|entry| entry.frame.seq).collect();
        assert_eq!(kept, [1, 2, 50]);
        assert_eq!(seqs(&cache, 1, 2).0, [2]);
        cache.advance(50);
        assert_eq!((seqs(&cache, 2, 50).0, cache.any_waiting), (vec![50], false));
    }
}
