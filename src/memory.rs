//! The memory that requests and responses use while they are in progress, and its limit.
//!
//! A response reserves its bytes from its handler's return until the socket has taken its last byte. A request's body reserves
//! its bytes from its first byte until the request has a response. Invariants:
//!
//! - Above the limit, the oldest reservations that are at least `EVICTION_AGE` old are evicted. The connection is then closed,
//!   or the read of the body aborted. A client that reads takes its response within milliseconds, so the oldest reservations
//!   belong to clients that do not read.
//! - If no reservation is old enough, there is [no capacity](Memory::has_capacity). Requests other than small writes are then
//!   rejected before they run. Large responses are checked once more, after the database has returned their data and before
//!   they are built. So the reservations exceed the limit at most by the responses that are built at that moment: one page
//!   for each connection to the database and each thread.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// The age from which a reservation can be evicted. A client always has this long to take its response.
const EVICTION_AGE: Duration = Duration::from_secs(1);

/// The reservations and their limit.
#[derive(Debug)]
pub struct Memory {
    limit: usize,
    reserved: AtomicUsize,
    /// The reservations that can be evicted, oldest first.
    evictable: Mutex<BTreeMap<u64, Entry>>,
    next: AtomicU64,
    evicted: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    since: Instant,
    bytes: usize,
    evict: CancellationToken,
}

/// A number of reserved bytes. Dropping it releases them.
pub struct MemoryReservation {
    memory: Arc<Memory>,
    number: u64,
    bytes: usize,
}

impl Memory {
    /// Creates a limit in bytes, with nothing reserved.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            reserved: AtomicUsize::new(0),
            evictable: Mutex::default(),
            next: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        }
    }

    fn evictable(&self) -> MutexGuard<'_, BTreeMap<u64, Entry>> {
        // A std mutex: it is locked for a map operation, never across an await.
        self.evictable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of reserved bytes.
    pub fn reserved(&self) -> usize {
        self.reserved.load(Ordering::Relaxed)
    }

    /// The number of reservations evicted so far.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Whether another request may run. Evicts old reservations if the limit is reached.
    pub fn has_capacity(&self) -> bool {
        if self.reserved() >= self.limit {
            self.evict_oldest();
        }
        self.reserved() < self.limit
    }

    /// Reserves `bytes` until the returned reservation is dropped. An eviction cancels `evict`; the caller must then drop the
    /// reservation soon.
    pub fn reserve(self: &Arc<Self>, bytes: usize, evict: &CancellationToken) -> MemoryReservation {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.evictable().insert(number, Entry { since: Instant::now(), bytes, evict: evict.clone() });
        if self.reserved.fetch_add(bytes, Ordering::Relaxed) + bytes > self.limit {
            self.evict_oldest();
        }
        MemoryReservation { memory: Arc::clone(self), number, bytes }
    }

    /// Evicts the oldest reservations, no more than needed to get below the limit.
    fn evict_oldest(&self) {
        let evictable = self.evictable();
        let mut excess = self.reserved().saturating_sub(self.limit) + 1;
        for entry in evictable.values().take_while(|entry| entry.since.elapsed() >= EVICTION_AGE) {
            if !entry.evict.is_cancelled() {
                entry.evict.cancel();
                self.evicted.fetch_add(1, Ordering::Relaxed);
            }
            excess = excess.saturating_sub(entry.bytes);
            if excess == 0 {
                return;
            }
        }
    }
}

impl MemoryReservation {
    /// Exempts the reservation from eviction, once nothing waits for the client any more. The bytes stay reserved; closing the
    /// connection would not free them.
    pub fn exempt_from_eviction(&self) {
        self.memory.evictable().remove(&self.number);
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        self.memory.evictable().remove(&self.number);
        self.memory.reserved.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl fmt::Debug for MemoryReservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryReservation").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn above_the_limit_the_oldest_are_evicted_and_no_more_than_needed() {
        let memory = Arc::new(Memory::new(100));
        let evictions = [(); 4].map(|()| CancellationToken::new());
        let mut reserved: Vec<_> = evictions.iter().take(3).map(|evict| memory.reserve(30, evict)).collect();
        assert!(memory.has_capacity());
        // No reservation is old enough.
        reserved.push(memory.reserve(30, &evictions[3]));
        assert!(!memory.has_capacity() && evictions.iter().all(|evict| !evict.is_cancelled()));
        for (entry, seconds) in memory.evictable().values_mut().zip([3, 2, 1, 0]) {
            entry.since -= Duration::from_secs(seconds);
        }
        assert!(!memory.has_capacity(), "evicted, but not released yet");
        assert_eq!(evictions.each_ref().map(CancellationToken::is_cancelled), [true, false, false, false]);
        assert!(!memory.has_capacity());
        assert_eq!((memory.evicted(), memory.reserved()), (1, 120), "evicted once");
        drop(reserved.remove(0));
        assert!(memory.has_capacity());
        drop(reserved);
        assert_eq!((memory.reserved(), memory.evictable().len()), (0, 0));
    }

    #[test]
    fn an_exempt_reservation_counts_until_it_is_dropped_and_is_not_evicted() {
        let memory = Arc::new(Memory::new(100));
        let evict = CancellationToken::new();
        let reservation = memory.reserve(150, &evict);
        reservation.exempt_from_eviction();
        assert!(!memory.has_capacity() && !evict.is_cancelled());
        assert_eq!((memory.reserved(), memory.evicted()), (150, 0));
        drop(reservation);
        assert!(memory.has_capacity());
    }
}
