//! Admission control for streams and polls, and the drain at shutdown.
//!
//! A server that stops drains: it accepts no new streams, and ends the open ones one by one over a time window. Each stream ends at
//! a different time, so that the clients do not all reconnect to the other replicas at once. Streams of rides that have not ended
//! are ended first, because a client whose stream ends last has the least time to reconnect.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::domain::UserId;

/// The maximum time between the ends of two streams. With few streams, the drain takes less than the whole window.
const MAX_INTERVAL: Duration = Duration::from_millis(50);

/// The limits on open streams and polls.
#[derive(Debug, Clone)]
pub struct StreamQuota {
    /// The limit of the server.
    pub total: usize,
    /// The limit per user.
    pub per_user: usize,
}

/// Why a stream or poll is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AdmissionError {
    /// The server's limit is reached.
    ServerLimit,
    /// The user's limit is reached.
    UserLimit,
}

/// Counts and limits open streams and polls, and drains them at shutdown.
#[derive(Debug)]
pub struct Admission {
    quota: StreamQuota,
    open: AtomicUsize,
    by_user: Mutex<HashMap<UserId, usize>>,
    all_ended: Notify,
    drain: watch::Sender<Option<Drain>>,
}

/// The schedule of a drain.
#[derive(Debug, Clone)]
pub(super) struct Drain {
    began: Instant,
    interval: Duration,
    window: Duration,
    /// The number of slots assigned from the start of the window (rides that have not ended) and from its end (ended rides).
    assigned: Arc<[AtomicU32; 2]>,
}

impl Admission {
    /// Creates an admission control without open streams.
    pub fn new(quota: StreamQuota) -> Self {
        Self {
            quota,
            open: AtomicUsize::new(0),
            by_user: Mutex::default(),
            all_ended: Notify::new(),
            drain: watch::Sender::new(None),
        }
    }

    /// Returns the number of open streams and polls.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Admits a stream or poll. It counts until the guard is dropped.
    pub(super) fn admit(self: &Arc<Self>, user: &UserId) -> Result<AdmissionGuard, AdmissionError> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.quota.total {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(AdmissionError::ServerLimit);
        }
        let mut by_user = self.by_user();
        let count = by_user.entry(user.clone()).or_default();
        if *count >= self.quota.per_user {
            drop(by_user);
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(AdmissionError::UserLimit);
        }
        *count += 1;
        drop(by_user);
        Ok(AdmissionGuard { admission: Arc::clone(self), user: user.clone() })
    }

    fn by_user(&self) -> MutexGuard<'_, HashMap<UserId, usize>> {
        // A std lock, because it is held only for a lookup, never across an await.
        self.by_user.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the server drains.
    pub fn is_draining(&self) -> bool {
        self.drain.borrow().is_some()
    }

    /// Starts the drain: accepts no new streams, and ends the open ones within `window`. Returns when all have ended, at the latest
    /// at the end of the window.
    pub async fn drain(&self, window: Duration) {
        let open = u32::try_from(self.open()).unwrap_or(u32::MAX);
        let interval = window.checked_div(open).unwrap_or_default().min(MAX_INTERVAL);
        let window = interval * open;
        let began = Instant::now();
        self.drain.send_replace(Some(Drain { began, interval, window, assigned: Arc::default() }));
        let all_ended = async {
            while self.open() > 0 {
                self.all_ended.notified().await;
            }
        };
        let _ = tokio::time::timeout_at(began + window, all_ended).await;
    }

    /// Returns a watch of the drain.
    pub(super) fn drain_changes(&self) -> watch::Receiver<Option<Drain>> {
        self.drain.subscribe()
    }

    /// Returns the time at which a stream must end because of the drain, which has started. `is_ongoing`: the ride has not ended.
    pub(super) fn drain_deadline(&self, is_ongoing: bool) -> Instant {
        self.drain.borrow().as_ref().map_or_else(Instant::now, |drain| drain.next_slot(is_ongoing))
    }
}

impl Drain {
    /// Returns a time that no other stream has.
    fn next_slot(&self, is_ongoing: bool) -> Instant {
        let [front, back] = &*self.assigned;
        let offset = if is_ongoing {
            self.interval * front.fetch_add(1, Ordering::Relaxed)
        } else {
            self.window.saturating_sub(self.interval * (back.fetch_add(1, Ordering::Relaxed) + 1))
        };
        self.began + offset
    }
}

/// Counts a stream or poll until it is dropped.
#[derive(Debug)]
pub(super) struct AdmissionGuard {
    admission: Arc<Admission>,
    user: UserId,
}

impl Drop for AdmissionGuard {
    fn drop(&mut self) {
        let mut by_user = self.admission.by_user();
        if let Some(count) = by_user.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                by_user.remove(&self.user);
            }
        }
        drop(by_user);
        if self.admission.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.admission.all_ended.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn admission(total: usize, per_user: usize) -> Arc<Admission> {
        Arc::new(Admission::new(StreamQuota { total, per_user }))
    }

    #[test]
    fn the_limits_per_user_and_in_total_apply_and_a_dropped_guard_frees_its_slot() {
        let admission = admission(3, 2);
        let (first, _second) = (admission.admit(&user("a")).unwrap(), admission.admit(&user("a")).unwrap());
        assert_eq!(admission.admit(&user("a")).err(), Some(AdmissionError::UserLimit));
        let _third = admission.admit(&user("b")).unwrap();
        assert_eq!(admission.admit(&user("c")).err(), Some(AdmissionError::ServerLimit));
        assert_eq!(admission.open(), 3);
        drop(first);
        let again = admission.admit(&user("a")).unwrap();
        drop(again);
        assert_eq!(admission.open(), 2);
        assert_eq!(admission.by_user().len(), 2);
    }

    #[tokio::test]
    async fn streams_end_within_the_window_at_distinct_times_and_active_rides_first() {
        let admission = admission(1_000, 1_000);
        let open: Vec<_> = (0..500).map(|_| admission.admit(&user("a")).unwrap()).collect();
        let began = Instant::now();
        let draining = admission.drain(Duration::from_secs(20));
        let leaving = async {
            let mut slots = Vec::new();
            for number in 0..500 {
                slots.push((admission.drain_deadline(number % 5 != 0) - began, number % 5 != 0));
            }
            slots.sort();
            for pair in slots.windows(2) {
                assert!(pair[1].0 - pair[0].0 >= Duration::from_millis(40), "{pair:?}");
            }
            assert!(slots.iter().take(400).all(|(_, is_ongoing)| *is_ongoing));
            assert!(slots.last().unwrap().0 < Duration::from_secs(20));
            assert!(admission.is_draining());
            drop(open);
        };
        tokio::join!(draining, leaving);
        // The drain ends when the last stream has ended, not at the end of the window.
        assert!(began.elapsed() < Duration::from_secs(20));
    }

    #[tokio::test]
    async fn a_drain_of_few_streams_is_short_and_does_not_wait_for_a_stream_that_does_not_end() {
        let admission = admission(1_000, 1_000);
        let _open: Vec<_> = (0..4).map(|_| admission.admit(&user("a")).unwrap()).collect();
        let (began, window) = (Instant::now(), Duration::from_secs(600));
        admission.drain(window).await;
        assert!(began.elapsed() >= Duration::from_millis(200) && began.elapsed() < window);
    }
}
