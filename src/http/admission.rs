//! Who may hold a connection open, how many, and how all of them leave when the server stops.
//!
//! A server that stops drains: it takes no new streams, and those that are open leave one by one over a window, each at a
//! moment of its own, so that their clients do not all come back to the other replicas at once. Streams of rides that go
//! on leave first, as the last ones to leave would find the least time to come back in.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::domain::UserId;

/// Between two that leave, where the window is long enough for it: a few streams are not kept for the whole window.
const LONGEST_STEP: Duration = Duration::from_millis(50);

/// How many streams and polls there may be.
#[derive(Debug, Clone)]
pub struct Quota {
    /// In all.
    pub in_all: usize,
    /// Of one user.
    pub of_user: usize,
}

/// Why somebody is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotAdmitted {
    /// The server has as many as it may.
    Full,
    /// The user has.
    TooManyOfUser,
}

/// Counts streams and polls, and lets them out.
#[derive(Debug)]
pub struct Admission {
    quota: Quota,
    open: AtomicUsize,
    of_users: Mutex<HashMap<UserId, usize>>,
    emptied: Notify,
    drain: watch::Sender<Option<Drain>>,
}

/// How those that are open leave.
#[derive(Debug, Clone)]
struct Drain {
    began: Instant,
    step: Duration,
    window: Duration,
    /// Places from the front, for rides that go on, and from the back, for the others.
    taken: Arc<[AtomicU32; 2]>,
}

impl Admission {
    /// Nobody is there yet.
    pub fn new(quota: Quota) -> Self {
        Self {
            quota,
            open: AtomicUsize::new(0),
            of_users: Mutex::default(),
            emptied: Notify::new(),
            drain: watch::Sender::new(None),
        }
    }

    /// How many streams and polls are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Counts one more, until what is returned is dropped.
    pub(super) fn admit(self: &Arc<Self>, user: &UserId) -> Result<Admitted, NotAdmitted> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.quota.in_all {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(NotAdmitted::Full);
        }
        let mut of_users = self.of_users();
        let of_user = of_users.entry(user.clone()).or_default();
        if *of_user >= self.quota.of_user {
            drop(of_users);
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(NotAdmitted::TooManyOfUser);
        }
        *of_user += 1;
        drop(of_users);
        Ok(Admitted { admission: Arc::clone(self), user: user.clone() })
    }

    fn of_users(&self) -> MutexGuard<'_, HashMap<UserId, usize>> {
        // A std lock: held for a lookup, never across an await.
        self.of_users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the server takes no new streams.
    pub fn is_draining(&self) -> bool {
        self.drain.borrow().is_some()
    }

    /// Takes no new streams from now on, and has those that are open leave within `window`. Returns when all have left,
    /// at the latest at its end.
    pub async fn drain(&self, window: Duration) {
        let open = u32::try_from(self.open()).unwrap_or(u32::MAX);
        let step = window.checked_div(open).unwrap_or_default().min(LONGEST_STEP);
        let window = step * open;
        let began = Instant::now();
        self.drain.send_replace(Some(Drain { began, step, window, taken: Arc::default() }));
        let emptied = async {
            while self.open() > 0 {
                self.emptied.notified().await;
            }
        };
        let _ = tokio::time::timeout_at(began + window, emptied).await;
    }

    /// Waits until the server drains.
    pub(super) async fn drains(&self) {
        // The sender lives in `self`, so this cannot fail.
        let _ = self.drain.subscribe().wait_for(Option::is_some).await;
    }

    /// Waits until the server drains, and takes a moment to leave at.
    pub(super) async fn leaves_at(&self, is_going_on: bool) -> Instant {
        let mut drain = self.drain.subscribe();
        // The sender lives in `self`, so this cannot fail.
        let begun = drain.wait_for(Option::is_some).await.ok().and_then(|drain| drain.clone());
        begun.map_or_else(Instant::now, |drain| drain.place(is_going_on))
    }
}

impl Drain {
    /// A moment that nobody else has.
    fn place(&self, is_going_on: bool) -> Instant {
        let [front, back] = &*self.taken;
        let offset = if is_going_on {
            self.step * front.fetch_add(1, Ordering::Relaxed)
        } else {
            self.window.saturating_sub(self.step * (back.fetch_add(1, Ordering::Relaxed) + 1))
        };
        self.began + offset
    }
}

/// One stream or poll, counted until it is dropped.
#[derive(Debug)]
pub(super) struct Admitted {
    admission: Arc<Admission>,
    user: UserId,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut of_users = self.admission.of_users();
        if let Some(count) = of_users.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                of_users.remove(&self.user);
            }
        }
        drop(of_users);
        if self.admission.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.admission.emptied.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn admission(in_all: usize, of_user: usize) -> Arc<Admission> {
        Arc::new(Admission::new(Quota { in_all, of_user }))
    }

    #[test]
    fn a_user_and_all_have_their_quota_and_what_ends_is_free_again() {
        let admission = admission(3, 2);
        let (first, _second) = (admission.admit(&user("a")).unwrap(), admission.admit(&user("a")).unwrap());
        assert_eq!(admission.admit(&user("a")).err(), Some(NotAdmitted::TooManyOfUser));
        let _third = admission.admit(&user("b")).unwrap();
        assert_eq!(admission.admit(&user("c")).err(), Some(NotAdmitted::Full));
        assert_eq!(admission.open(), 3);
        drop(first);
        let again = admission.admit(&user("a")).unwrap();
        drop(again);
        assert_eq!(admission.open(), 2);
        assert_eq!(admission.of_users().len(), 2);
    }

    #[tokio::test]
    async fn all_leave_within_the_window_at_moments_of_their_own_and_rides_that_go_on_first() {
        let admission = admission(1_000, 1_000);
        let open: Vec<_> = (0..500).map(|_| admission.admit(&user("a")).unwrap()).collect();
        let began = Instant::now();
        let draining = admission.drain(Duration::from_secs(20));
        let leaving = async {
            let mut places = Vec::new();
            for number in 0..500 {
                places.push((admission.leaves_at(number % 5 != 0).await - began, number % 5 != 0));
            }
            places.sort();
            for pair in places.windows(2) {
                assert!(pair[1].0 - pair[0].0 >= Duration::from_millis(40), "{pair:?}");
            }
            assert!(places.iter().take(400).all(|(_, is_going_on)| *is_going_on));
            assert!(places.last().unwrap().0 < Duration::from_secs(20));
            assert!(admission.is_draining());
            drop(open);
        };
        tokio::join!(draining, leaving);
        // It ends when the last has left, not at the end of the window.
        assert!(began.elapsed() < Duration::from_secs(20));
    }

    #[tokio::test]
    async fn a_few_are_not_kept_for_the_whole_window_and_one_that_does_not_leave_is_not_waited_for() {
        let admission = admission(1_000, 1_000);
        let _open: Vec<_> = (0..4).map(|_| admission.admit(&user("a")).unwrap()).collect();
        let (began, window) = (Instant::now(), Duration::from_secs(600));
        admission.drain(window).await;
        assert!(began.elapsed() >= Duration::from_millis(200) && began.elapsed() < window);
    }
}
