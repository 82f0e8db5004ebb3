//! A topic that somebody here is reading: where its log ends, and its last few events.
//!
//! Invariants, all under the ring's lock:
//! - The ring is contiguous and ends at `end`: an event is appended only at `end + 1`. Whatever comes further
//!   ahead only raises `wanted`; the hub's loader then reads what lies between from the log, once for all readers.
//! - The head, which readers wait on, moves only after the ring has been filled up to it, and only grows.
//! - An event that erases (a deletion) empties the ring of what came before it: what was said there is gone from
//!   the log, so it is gone from here. So does the erasure of a user, with all topics: a page that was read before it is not
//!   taken after it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::Event;
use super::signals::{Signals, Value};
use crate::domain::{Seq, Signal, SignalKind, Topic, UserId};

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
    /// How often the ring had been dropped when this was asked for.
    pub(super) generation: u64,
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
    /// Counts how often the events were dropped because some of them may have been erased.
    generation: u64,
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
        Some(Missing { after, up_to: ring.wanted, generation: ring.generation })
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
        if ring.generation != missing.generation {
            return self.settle(ring);
        }
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

    /// Drops the events: some of them may have been erased. Readers go on with the log.
    pub(super) fn drop_events(&self) {
        let mut ring = self.ring();
        ring.generation += 1;
        ring.clear();
    }

    /// The users of whom a value of a kind is known, and its version.
    pub(super) fn versions(&self, kind: SignalKind) -> Vec<(UserId, i64)> {
        self.ring().signals.versions_of(kind)
    }

    /// Forgets a value, unless a later one is known.
    pub(super) fn forget_value(&self, kind: SignalKind, user: &UserId, version: i64) {
        self.ring().signals.forget(kind, user, version);
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
mod tests;
