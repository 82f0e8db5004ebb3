//! A topic that somebody here is reading: where its log ends, and its last few events.
//!
//! Invariants, all under the ring's lock:
//! - The ring is contiguous and ends at `end`: an event is appended only at `end + 1`. Whatever comes further
//!   ahead only raises `wanted`; the hub's loader then reads what lies between from the log, once for all readers.
//! - The head, which readers wait on, moves only after the ring has been filled up to it, and only grows.
//! - An event that erases (a deletion) empties the ring of what came before it: what was said there is gone from
//!   the log, so it is gone from here.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::Event;
use super::signals::{Signals, Value};
use crate::domain::{Seq, Signal, SignalKind, Topic};

/// The most events, and the most bytes of them, that a topic keeps for readers a moment behind.
const RING_EVENTS: usize = 64;
const RING_BYTES: usize = 64 * 1024;

/// Where a topic's log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// The seq of the last event that can be read.
    pub(super) seq: Seq,
    /// The number of the last change of a value.
    pub(super) signals: u64,
    /// Whether this log is no longer what its readers have been reading (a restored database).
    pub(super) is_reset: bool,
}

/// Events that are known to exist and are not in the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Missing {
    /// Exclusive.
    pub(super) after: Seq,
    /// Inclusive: as far as was said when this was asked for. Where a page is to be filled in that has nothing of
    /// it, it must be what the log itself has said.
    pub(super) up_to: Seq,
}

/// One topic of the hub.
#[derive(Debug)]
pub(super) struct TopicState {
    pub(super) name: Topic,
    ring: Mutex<Ring>,
    head: watch::Sender<Head>,
}

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Event>,
    bytes: usize,
    /// The last seq known to be readable; `None` until somebody has said where the log ends.
    end: Option<Seq>,
    /// The last seq known to exist.
    wanted: Seq,
    signals: Signals,
}

impl TopicState {
    pub(super) fn new(name: Topic) -> Self {
        Self { name, ring: Mutex::default(), head: watch::Sender::new(Head { seq: 0, signals: 0, is_reset: false }) }
    }

    pub(super) fn watch(&self) -> watch::Receiver<Head> {
        self.head.subscribe()
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // A std lock: a few moves of pointers, never held across an await.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the ring ends, if it has begun.
    pub(super) fn end(&self) -> Option<Seq> {
        self.ring().end
    }

    /// What the log has to be asked for, if anything.
    pub(super) fn missing(&self) -> Option<Missing> {
        let ring = self.ring();
        let after = ring.end.filter(|end| *end < ring.wanted)?;
        Some(Missing { after, up_to: ring.wanted })
    }

    /// Notes that the log reaches `seq`, as the database has just said to a reader who had registered before.
    /// Returns whether events are missing now.
    pub(super) fn observe(&self, seq: Seq) -> bool {
        let mut ring = self.ring();
        if ring.end.is_none() {
            ring.end = Some(seq);
        }
        ring.wanted = ring.wanted.max(seq);
        self.settle(ring)
    }

    /// Notes that the log is said to reach `seq`. Returns whether events are missing now.
    pub(super) fn hint(&self, seq: Seq) -> bool {
        let mut ring = self.ring();
        ring.wanted = ring.wanted.max(seq);
        // Where the ring has not begun, the reader who is opening will say where it does.
        self.settle(ring)
    }

    /// Takes events that were committed here. Returns whether events are missing now.
    pub(super) fn publish(&self, events: Vec<Event>) -> bool {
        let mut ring = self.ring();
        if let Some(first) = events.first() {
            ring.end.get_or_insert(first.seq - 1);
        }
        for event in events {
            ring.wanted = ring.wanted.max(event.seq);
            ring.append(event);
        }
        self.settle(ring)
    }

    /// Takes the page of the log that was read for what was missing. Returns whether events are missing still.
    pub(super) fn fill(&self, missing: Missing, page: Vec<Event>) -> bool {
        let mut ring = self.ring();
        // Where the log no longer has the next event, the ring starts anew behind the hole; readers meet the
        // hole in the log itself. Only if nothing has filled it meanwhile.
        let readable = page.first().map_or(missing.up_to, |first| first.seq - 1);
        if ring.end == Some(missing.after) && readable > missing.after {
            ring.clear();
            ring.end = Some(readable);
        }
        page.into_iter().for_each(|event| ring.append(event));
        self.settle(ring)
    }

    /// Notes that the log has nothing after what is here, whatever a hint has said. A hint that has come since is
    /// lost with it, which costs the wait for the next look. So is a value that names a seq after what is here.
    pub(super) fn doubt(&self, missing: Missing) {
        let mut ring = self.ring();
        if ring.end == Some(missing.after) && ring.wanted == missing.up_to {
            ring.wanted = missing.after;
            ring.signals.forget_after(missing.after);
            self.settle(ring);
        }
    }

    /// Takes a value that is told and not logged. It is a hint as well: the log reaches the seq that it names. Returns
    /// whether events are missing now.
    pub(super) fn offer(&self, signal: &Signal) -> bool {
        let mut ring = self.ring();
        let end = ring.reached();
        if !ring.signals.offer(signal, end) {
            return false;
        }
        ring.wanted = ring.wanted.max(signal.seq);
        self.settle(ring)
    }

    /// Takes values that a reader has just found in the database; see [`Signals::seed`].
    pub(super) fn seed(&self, values: &[Signal], read: u64) -> u64 {
        let mut ring = self.ring();
        let end = ring.reached();
        let known = ring.signals.seed(values, read, end);
        self.settle(ring);
        known
    }

    /// The values that have changed since, for a reader at `cursor`; see [`Signals::since`].
    pub(super) fn signals_since(&self, serial: u64, cursor: Seq) -> (Vec<Value>, u64) {
        self.ring().signals.since(serial, cursor)
    }

    /// The sum of the versions of a kind.
    pub(super) fn total(&self, kind: SignalKind) -> i64 {
        self.ring().signals.total(kind)
    }

    /// The version of the last value of a kind.
    pub(super) fn version(&self, kind: SignalKind) -> i64 {
        self.ring().signals.version(kind)
    }

    /// Ends this topic for all its readers.
    pub(super) fn reset(&self) {
        self.ring().clear();
        self.head.send_modify(|head| head.is_reset = true);
    }

    /// The events after `cursor`, at most `limit`; `None` where the ring does not reach back that far.
    pub(super) fn after(&self, cursor: Seq, limit: usize) -> Option<Vec<Event>> {
        let ring = self.ring();
        let first = ring.events.front()?.seq;
        let skip = usize::try_from(cursor + 1 - first).ok()?;
        Some(ring.events.iter().skip(skip).take(limit).cloned().collect())
    }

    /// Lets readers see what the ring has now.
    fn settle(&self, mut ring: MutexGuard<'_, Ring>) -> bool {
        let missing = ring.end.is_some_and(|end| end < ring.wanted);
        let end = ring.reached();
        ring.signals.reach(end);
        let signals = ring.signals.serial();
        // Under the lock still, so that heads are told in the order in which the ring grew.
        self.head.send_if_modified(|head| {
            let moved = end > head.seq || signals > head.signals;
            head.seq = head.seq.max(end);
            head.signals = signals;
            moved
        });
        missing
    }
}

impl Ring {
    /// The seq up to which readers can read.
    fn reached(&self) -> Seq {
        self.end.unwrap_or(0)
    }

    fn append(&mut self, event: Event) {
        if self.end != Some(event.seq - 1) {
            return;
        }
        if event.kind.erases() {
            self.clear();
        }
        self.end = Some(event.seq);
        self.bytes += event.size();
        self.events.push_back(event);
        while self.events.len() > RING_EVENTS || self.bytes > RING_BYTES {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= oldest.size();
        }
    }

    /// Forgets the events; values are none.
    fn clear(&mut self) {
        self.events = VecDeque::new();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{EventType, RideId, UserId};

    fn topic() -> TopicState {
        TopicState::new(Topic::ride(&RideId::parse("ride").unwrap()))
    }

    fn events(seqs: impl IntoIterator<Item = Seq>) -> Vec<Event> {
        seqs.into_iter().map(|seq| Event::new(seq, EventType::MessageNew, "{}")).collect()
    }

    fn fill(topic: &TopicState, after: Seq, page: Vec<Event>) -> bool {
        let up_to = topic.ring().wanted;
        topic.fill(Missing { after, up_to }, page)
    }

    fn after(topic: &TopicState, cursor: Seq) -> Option<Vec<Seq>> {
        topic.after(cursor, 1_000).map(|events| events.iter().map(|event| event.seq).collect())
    }

    #[test]
    fn a_hint_before_after_and_instead_of_the_local_publish_gives_each_event_once() {
        let orders: [&[&str]; 4] = [&["hint", "publish"], &["publish", "hint"], &["hint"], &["publish"]];
        for order in orders {
            let topic = topic();
            assert!(!topic.observe(10));
            for step in order {
                let missing = match *step {
                    "hint" => topic.hint(11),
                    _ => topic.publish(events([11])),
                };
                if missing {
                    // What the loader read, which may come before or after the publish.
                    assert!(!fill(&topic, 10, events([11])));
                }
            }
            assert_eq!(after(&topic, 10), Some(vec![11]), "{order:?}");
            assert_eq!(topic.watch().borrow().seq, 11);
        }
    }

    #[test]
    fn the_head_waits_for_what_lies_between() {
        let topic = topic();
        topic.observe(10);
        assert!(topic.publish(events([13])), "11 and 12 were committed elsewhere and are missing");
        assert_eq!(topic.watch().borrow().seq, 10);
        assert!(fill(&topic, 10, events([11])), "the page ended before 13");
        assert_eq!(topic.watch().borrow().seq, 11);
        assert!(!fill(&topic, 11, events([12, 13])));
        assert_eq!(after(&topic, 10), Some(vec![11, 12, 13]));
        assert_eq!(after(&topic, 9), None, "10 is in the log alone");
    }

    #[test]
    fn what_comes_before_the_first_reader_knows_the_head_is_not_lost() {
        // A hint arrives between a reader's registration and its look at the database, which was older.
        let topic = topic();
        assert!(!topic.hint(11));
        assert!(topic.observe(10), "11 is missing, and known to be");
        assert!(!fill(&topic, 10, events([11])));
        assert_eq!(after(&topic, 10), Some(vec![11]));
        // The same with a publish.
        let topic = self::topic();
        assert!(!topic.publish(events([11])));
        assert!(!topic.observe(10));
        assert_eq!(after(&topic, 10), Some(vec![11]));
    }

    #[test]
    fn a_late_page_repeats_nothing() {
        let topic = topic();
        topic.observe(10);
        topic.publish(events([11, 12]));
        assert!(!fill(&topic, 10, events([11, 12])));
        assert!(!fill(&topic, 10, Vec::new()));
        assert_eq!(after(&topic, 10), Some(vec![11, 12]));
        // A page that was empty because nothing was missing when it was asked for, and a hint since.
        assert!(topic.hint(13));
        assert!(topic.fill(Missing { after: 12, up_to: 12 }, Vec::new()), "13 is missing, not gone");
        assert_eq!(topic.watch().borrow().seq, 12);
    }

    #[test]
    fn a_deletion_empties_the_ring_of_what_came_before() {
        let topic = topic();
        topic.observe(0);
        topic.publish(events([1, 2]));
        topic.publish(vec![Event::new(3, EventType::MessageDeleted, "{}")]);
        assert_eq!(after(&topic, 0), None);
        assert_eq!(after(&topic, 2), Some(vec![3]));
    }

    #[test]
    fn a_hole_in_the_log_does_not_hold_readers_up() {
        let topic = topic();
        topic.observe(10);
        assert!(topic.hint(30));
        assert!(!fill(&topic, 10, events(21..=30)), "11 to 20 are gone");
        assert_eq!(topic.watch().borrow().seq, 30);
        assert_eq!(after(&topic, 10), None, "a reader meets the hole in the log");
        assert!(topic.hint(40));
        assert!(!fill(&topic, 30, Vec::new()), "all is gone");
        assert_eq!(topic.watch().borrow().seq, 40);
    }

    #[test]
    fn a_hint_that_said_too_much_is_taken_back() {
        let topic = topic();
        topic.observe(10);
        assert!(topic.hint(1_000));
        let missing = topic.missing().unwrap();
        topic.doubt(missing);
        assert_eq!(topic.missing(), None);
        assert!(!topic.publish(events([11])));
        assert_eq!(after(&topic, 10), Some(vec![11]));
        // What has grown meanwhile stays wanted.
        assert!(topic.hint(12));
        let missing = topic.missing().unwrap();
        assert!(topic.hint(13));
        topic.doubt(missing);
        assert!(!fill(&topic, 11, events([12, 13])));
        assert_eq!(after(&topic, 11), Some(vec![12, 13]));
    }

    #[test]
    fn a_value_has_the_log_read_up_to_it_and_wakes_readers_when_it_is() {
        let topic = topic();
        topic.observe(10);
        let (kind, user) = (EventType::RideLocation, UserId::parse("driver").unwrap());
        let value = Signal { topic: topic.name.clone(), kind, user, version: 1, seq: 12, data: "{}".to_owned() };
        assert!(topic.offer(&value), "11 and 12 are missing, though no hint has come");
        assert!(!topic.offer(&value), "it is no news");
        assert_eq!(topic.signals_since(0, 10).0.len(), 0);
        let mut head = topic.watch();
        assert!(!fill(&topic, 10, events([11, 12])));
        assert!(head.has_changed().unwrap() && head.borrow_and_update().seq == 12);
        assert_eq!(topic.signals_since(0, 12).0.len(), 1);
        // One that names what the log does not have goes with the hint that it was.
        assert!(topic.offer(&Signal { version: 2, seq: 99, ..value }));
        topic.doubt(topic.missing().unwrap());
        assert_eq!((topic.missing(), topic.version(SignalKind::Location)), (None, 1));
    }

    #[test]
    fn the_ring_is_bounded_in_events_and_bytes() {
        let topic = topic();
        topic.observe(0);
        topic.publish(events(1..=1_000));
        assert_eq!(after(&topic, 1_000 - RING_EVENTS as Seq).unwrap().len(), RING_EVENTS);
        assert_eq!(after(&topic, 1_000 - RING_EVENTS as Seq - 1), None);
        let big = "x".repeat(RING_BYTES / 2);
        topic.publish((1_001..=1_010).map(|seq| Event::new(seq, EventType::MessageNew, &big)).collect());
        assert_eq!(after(&topic, 1_009), Some(vec![1_010]));
        assert_eq!(after(&topic, 1_008), None);
    }
}
