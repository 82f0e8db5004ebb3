//! A topic that has readers on this replica: the head of its log, and its most recent events.
//!
//! Invariants, all under the ring's lock:
//! - The ring is contiguous and ends at `end`. An event is appended only at `end + 1`. A later event only raises `wanted`; the hub's loader
//!   then reads the events in between from the log, once for all readers.
//! - The head, which readers wait on, only grows. It moves only after the ring has been filled up to it.
//! - An event that erases (a deletion) empties the ring of all earlier events, because the log no longer has their content. The erasure
//!   of a user does the same with all topics: a page that was read before the erasure is not accepted after it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::Event;
use super::state_cache::{StateCache, StateFrame};
use crate::domain::{Seq, StateKind, StateUpdate, Topic, UserId};

/// The largest number of events, and of their bytes, that a topic keeps for readers that are a moment behind.
const RING_EVENTS: usize = 64;
const RING_BYTES: usize = 64 * 1024;

/// The end of a topic's log, as its readers see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// The seq of the last event that can be read.
    pub(super) seq: Seq,
    /// The serial number of the last state update.
    pub(super) serial: u64,
    /// Whether the log was replaced by another one (a restored database).
    pub(super) is_reset: bool,
}

/// A range of events that exist and are not in the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Missing {
    /// Exclusive.
    pub(super) after: Seq,
    /// Inclusive: the last known seq when the range was determined. If a page without events is filled in, this must be the log's own head.
    pub(super) up_to: Seq,
    /// The ring's generation when the range was determined.
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
    /// The last seq that can be read, or `None` until the log's head is known.
    end: Option<Seq>,
    /// The last seq that is known to exist.
    wanted: Seq,
    updates: StateCache,
    /// Counts how often the events were dropped because some of them may have been erased.
    generation: u64,
}

impl TopicState {
    pub(super) fn new(name: Topic) -> Self {
        Self { name, ring: Mutex::default(), head: watch::Sender::new(Head { seq: 0, serial: 0, is_reset: false }) }
    }

    pub(super) fn watch(&self) -> watch::Receiver<Head> {
        self.head.subscribe()
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // A std lock: held for a few pointer moves, never across an await.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns where the ring ends, if it has started.
    pub(super) fn end(&self) -> Option<Seq> {
        self.ring().end
    }

    /// Returns the events that must be loaded from the log, if any.
    pub(super) fn missing(&self) -> Option<Missing> {
        let ring = self.ring();
        let after = ring.end.filter(|end| *end < ring.wanted)?;
        Some(Missing { after, up_to: ring.wanted, generation: ring.generation })
    }

    /// Notes the log's head, which a registered reader has just read from the database. Returns whether events are missing now.
    pub(super) fn observe(&self, seq: Seq) -> bool {
        let mut ring = self.ring();
        if ring.end.is_none() {
            ring.end = Some(seq);
        }
        ring.wanted = ring.wanted.max(seq);
        self.publish_head(ring)
    }

    /// Notes the log's head, as a hint reports it. Returns whether events are missing now.
    pub(super) fn hint(&self, seq: Seq) -> bool {
        let mut ring = self.ring();
        ring.wanted = ring.wanted.max(seq);
        // If the ring has not started, the reader that is opening will determine where it starts.
        self.publish_head(ring)
    }

    /// Adds events that were committed on this replica. Returns whether events are missing now.
    pub(super) fn publish(&self, events: Vec<Event>) -> bool {
        let mut ring = self.ring();
        if let Some(first) = events.first() {
            ring.end.get_or_insert(first.seq - 1);
        }
        for event in events {
            ring.wanted = ring.wanted.max(event.seq);
            ring.append(event);
        }
        self.publish_head(ring)
    }

    /// Adds the page of the log that was loaded for `missing`. Returns whether events are still missing.
    pub(super) fn fill(&self, missing: Missing, page: Vec<Event>) -> bool {
        let mut ring = self.ring();
        if ring.generation != missing.generation {
            return self.publish_head(ring);
        }
        // If the log no longer has the next event, the ring starts again after the gap, and readers find the gap in the log itself.
        // This applies only if nothing has filled the gap meanwhile.
        let readable = page.first().map_or(missing.up_to, |first| first.seq - 1);
        if ring.end == Some(missing.after) && readable > missing.after {
            ring.clear();
            ring.end = Some(readable);
        }
        page.into_iter().for_each(|event| ring.append(event));
        self.publish_head(ring)
    }

    /// Retracts a hint: the log has nothing after the ring's end. A hint that has arrived since is lost too, which costs the wait for
    /// the next check. State updates that name a later seq are dropped.
    pub(super) fn retract_hint(&self, missing: Missing) {
        let mut ring = self.ring();
        if ring.end == Some(missing.after) && ring.wanted == missing.up_to {
            ring.wanted = missing.after;
            ring.updates.drop_after(missing.after);
            self.publish_head(ring);
        }
    }

    /// Adds a state update. It is a hint as well: the log reaches the seq that it names. Returns whether events are missing now.
    pub(super) fn offer(&self, update: &StateUpdate) -> bool {
        let mut ring = self.ring();
        let end = ring.readable_up_to();
        if !ring.updates.offer(update, end) {
            return false;
        }
        ring.wanted = ring.wanted.max(update.seq);
        self.publish_head(ring)
    }

    /// Adds state that a reader has just read from the database; see [`StateCache::seed`].
    pub(super) fn seed(&self, state: &[StateUpdate], read: u64) -> u64 {
        let mut ring = self.ring();
        let end = ring.readable_up_to();
        let serial = ring.updates.seed(state, read, end);
        self.publish_head(ring);
        serial
    }

    /// Returns the state updates after `serial`, for a reader at `cursor`; see [`StateCache::since`].
    pub(super) fn updates_since(&self, serial: u64, cursor: Seq) -> (Vec<StateFrame>, u64) {
        self.ring().updates.since(serial, cursor)
    }

    /// Returns the sum of the versions of a kind.
    pub(super) fn version_sum(&self, kind: StateKind) -> i64 {
        self.ring().updates.version_sum(kind)
    }

    /// Returns the version of the latest update of a kind.
    pub(super) fn version(&self, kind: StateKind) -> i64 {
        self.ring().updates.version(kind)
    }

    /// Ends this topic for all its readers.
    pub(super) fn reset(&self) {
        self.ring().clear();
        self.head.send_modify(|head| head.is_reset = true);
    }

    /// Drops all events, because some of them may have been erased. Readers continue with the log.
    pub(super) fn drop_events(&self) {
        let mut ring = self.ring();
        ring.generation += 1;
        ring.clear();
    }

    /// Returns each user who has a cached update of a kind, with its version.
    pub(super) fn versions(&self, kind: StateKind) -> Vec<(UserId, i64)> {
        self.ring().updates.versions_of(kind)
    }

    /// Drops an update, unless a newer one is cached.
    pub(super) fn drop_update(&self, kind: StateKind, user: &UserId, version: i64) {
        self.ring().updates.drop_update(kind, user, version);
    }

    /// Returns the events after `cursor`, at most `limit`, or `None` if the ring does not reach back that far.
    pub(super) fn after(&self, cursor: Seq, limit: usize) -> Option<Vec<Event>> {
        let ring = self.ring();
        let first = ring.events.front()?.seq;
        let skip = usize::try_from(cursor + 1 - first).ok()?;
        Some(ring.events.iter().skip(skip).take(limit).cloned().collect())
    }

    /// Publishes the new head to readers. Returns whether events are missing.
    fn publish_head(&self, mut ring: MutexGuard<'_, Ring>) -> bool {
        let missing = ring.end.is_some_and(|end| end < ring.wanted);
        let end = ring.readable_up_to();
        ring.updates.advance(end);
        let serial = ring.updates.serial();
        // Still under the lock, so that heads are published in the order in which the ring grew.
        self.head.send_if_modified(|head| {
            let moved = end > head.seq || serial > head.serial;
            head.seq = head.seq.max(end);
            head.serial = serial;
            moved
        });
        missing
    }
}

impl Ring {
    /// Returns the seq up to which readers can read.
    fn readable_up_to(&self) -> Seq {
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

    /// Drops the events. The state updates stay.
    fn clear(&mut self) {
        self.events = VecDeque::new();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests;
