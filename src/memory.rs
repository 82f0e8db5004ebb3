//! The memory that requests and responses hold while they are on their way, and its ceiling.
//!
//! A response is held from its handler's return until the socket has taken its last byte; a body of a request, from its beginning
//! until the request is answered. What holds here:
//!
//! - Beyond the ceiling the client that has waited longest is cut off, unless it has waited for less than `GRACE`: what a
//!   client reads is gone within milliseconds, so the oldest are those that do not read.
//! - Where nobody has waited that long, there is [no room](Memory::has_room): requests, but for small writes, are rejected before they are
//!   carried out, and large responses once more before they are made, when the database has given what they are made of. So what is held
//!   exceeds the ceiling by what is made at that moment: a page for each connection to the database, and each thread.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// How long a client may take for what is there for it, however much others need.
const GRACE: Duration = Duration::from_secs(1);

/// What is held, and by whom.
#[derive(Debug)]
pub struct Memory {
    ceiling: usize,
    held: AtomicUsize,
    /// By the order in which they came.
    waiting: Mutex<BTreeMap<u64, Waiting>>,
    next: AtomicU64,
    cut_off: AtomicU64,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    bytes: usize,
    cut: CancellationToken,
}

/// A part of the memory, until it is dropped.
pub struct Held {
    memory: Arc<Memory>,
    number: u64,
    bytes: usize,
}

impl Memory {
    /// Nothing is held yet.
    pub fn new(ceiling: usize) -> Self {
        Self {
            ceiling,
            held: AtomicUsize::new(0),
            waiting: Mutex::default(),
            next: AtomicU64::new(0),
            cut_off: AtomicU64::new(0),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, Waiting>> {
        // A std lock: held for a move in a map, never across an await.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many bytes are held.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// How many clients were cut off because others needed the memory.
    pub fn cut_off(&self) -> u64 {
        self.cut_off.load(Ordering::Relaxed)
    }

    /// Whether another request may be carried out.
    pub fn has_room(&self) -> bool {
        if self.held() >= self.ceiling {
            self.make_room();
        }
        self.held() < self.ceiling
    }

    /// Holds so many bytes until what is returned is dropped, which cancelling `cut` is to bring about.
    pub fn hold(self: &Arc<Self>, bytes: usize, cut: &CancellationToken) -> Held {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.waiting().insert(number, Waiting { since: Instant::now(), bytes, cut: cut.clone() });
        if self.held.fetch_add(bytes, Ordering::Relaxed) + bytes > self.ceiling {
            self.make_room();
        }
        Held { memory: Arc::clone(self), number, bytes }
    }

    /// Cuts off those that have waited longest.
    fn make_room(&self) {
        let waiting = self.waiting();
        let mut excess = self.held().saturating_sub(self.ceiling) + 1;
        for one in waiting.values().take_while(|one| one.since.elapsed() >= GRACE) {
            if !one.cut.is_cancelled() {
                one.cut.cancel();
                self.cut_off.fetch_add(1, Ordering::Relaxed);
            }
            excess = excess.saturating_sub(one.bytes);
            if excess == 0 {
                return;
            }
        }
    }
}

impl Held {
    /// Notes that nobody waits for a client any more: the memory stays held, and cutting somebody off would not free it.
    pub fn settle(&self) {
        self.memory.waiting().remove(&self.number);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.waiting().remove(&self.number);
        self.memory.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_ceiling_the_oldest_are_cut_off_and_no_more_than_needed() {
        let memory = Arc::new(Memory::new(100));
        let cuts = [(); 4].map(|()| CancellationToken::new());
        let mut held: Vec<_> = cuts.iter().take(3).map(|cut| memory.hold(30, cut)).collect();
        assert!(memory.has_room());
        // Nobody has waited long enough.
        held.push(memory.hold(30, &cuts[3]));
        assert!(!memory.has_room() && cuts.iter().all(|cut| !cut.is_cancelled()));
        for (one, seconds) in memory.waiting().values_mut().zip([3, 2, 1, 0]) {
            one.since -= Duration::from_secs(seconds);
        }
        assert!(!memory.has_room(), "it is cut off, and has not let go yet");
        assert_eq!(cuts.each_ref().map(CancellationToken::is_cancelled), [true, false, false, false]);
        assert!(!memory.has_room());
        assert_eq!((memory.cut_off(), memory.held()), (1, 120), "once");
        drop(held.remove(0));
        assert!(memory.has_room());
        drop(held);
        assert_eq!((memory.held(), memory.waiting().len()), (0, 0));
    }

    #[test]
    fn what_nobody_waits_for_counts_until_it_is_dropped_and_cuts_nobody_off() {
        let memory = Arc::new(Memory::new(100));
        let cut = CancellationToken::new();
        let held = memory.hold(150, &cut);
        held.settle();
        assert!(!memory.has_room() && !cut.is_cancelled());
        assert_eq!((memory.held(), memory.cut_off()), (150, 0));
        drop(held);
        assert!(memory.has_room());
    }
}
