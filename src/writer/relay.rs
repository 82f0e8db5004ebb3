//! Assigns each committed event its position in the feed, which is one order over all rides and users.
//!
//! Positions are assigned by one statement, under a lock that Postgres releases at the end of its transaction, or of its connection.
//! So no replica is the leader, and none has to be replaced. Two transactions at the same moment cannot assign two positions to one
//! event, or one position twice, because both happen under the lock.
//!
//! - While the feed is read on this replica, the writer runs the statement in each batch's own transaction. The events then have
//!   their positions at their commit, and reach the feed's readers together with those of the ride. If another transaction has the
//!   lock, the batch waits for the relay, or for the next batch that gets the lock.
//! - Each replica runs a relay, which each other commit wakes. If nothing reads the feed, positions can wait a little, and the relay
//!   takes more batches with each commit. A relay that finds the lock taken tries again until it has had it. If a replica stops, the
//!   periodic step of any other relays its remaining events. A replica whose readers wait for the feed also relays when it is
//!   notified of commits of other replicas.
//!
//! The order of a ride's events is kept. A batch that follows another on the same ride is committed after it and recorded after it.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::stored_events::Relayed;
use crate::domain::Seq;
use crate::store::{RelayStep, Store};

/// The maximum number of batches in one step.
const BATCHES: i64 = 500;

/// The minimum time between two steps while the feed is read. The first commit after a pause is relayed at once.
const READ_INTERVAL: Duration = Duration::from_millis(5);

/// The minimum time between two steps while nothing on this replica reads the feed. Each step is a commit that competes with messages
/// for the disk, and no reader waits for it.
const UNREAD_INTERVAL: Duration = Duration::from_millis(250);

/// The time until a relay that finds the lock taken tries again, jittered.
const BUSY_MS: std::ops::Range<u64> = 5..20;

/// The time until a relay tries again after an error, jittered.
const ERROR_MS: std::ops::Range<u64> = 200..1_000;

/// How the relay is connected with the feed's readers on this replica.
pub struct FeedReaders {
    /// Returns whether the feed is read.
    pub is_read: Box<dyn Fn() -> bool + Send + Sync>,
    /// Receives the feed's head whenever it has moved.
    pub on_appended: Box<dyn Fn(Seq) + Send + Sync>,
}

impl fmt::Debug for FeedReaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeedReaders").finish_non_exhaustive()
    }
}

/// Wakes the relay task, and connects the writer with the feed's readers.
#[derive(Debug, Default)]
pub struct Relay {
    work: Notify,
    /// What is committed now must be relayed at once.
    urgent: Notify,
    readers: OnceLock<FeedReaders>,
    /// The feed's end of which the readers were last notified.
    end: AtomicI64,
}

impl Relay {
    /// Connects the feed's readers. Later calls have no effect.
    pub fn connect(&self, readers: FeedReaders) {
        let _ = self.readers.set(readers);
    }

    /// Returns whether the feed is read on this replica.
    pub fn is_read(&self) -> bool {
        self.readers.get().is_some_and(|readers| (readers.is_read)())
    }

    /// Records that the feed ends at `last`.
    fn appended(&self, last: Seq) {
        // Not a maximum: the end is lower in a database that has lost commits.
        if self.end.swap(last, Ordering::Relaxed) != last
            && let Some(readers) = self.readers.get()
        {
            (readers.on_appended)(last);
        }
    }

    /// Records the positions that a batch has assigned in its own transaction.
    pub fn relayed_by_batch(&self, relayed: &Relayed) {
        self.appended(relayed.last);
        if relayed.has_more {
            self.wake();
        }
    }

    /// Records that there are commits to relay.
    pub fn wake(&self) {
        self.work.notify_one();
    }

    /// Records that what is committed now must be relayed at once, for example because a reader begins.
    pub fn wake_now(&self) {
        self.urgent.notify_one();
    }

    /// Relays when woken, and about every `period`, forever.
    pub async fn run(&self, store: Arc<Store>, period: Duration) {
        let mut last_step = Instant::now();
        loop {
            tokio::select! {
                () = self.urgent.notified() => {}
                () = sleep(period.mul_f64(0.8 + 0.4 * fastrand::f64())) => {}
                () = self.work.notified() => {
                    let pause = if self.is_read() { READ_INTERVAL } else { UNREAD_INTERVAL };
                    tokio::select! {
                        () = self.urgent.notified() => {}
                        () = sleep_until(last_step + pause) => {}
                    }
                }
            }
            last_step = Instant::now();
            loop {
                let pause = match store.relay(BATCHES).await {
                    Ok(RelayStep::Done { last, has_more }) => {
                        // Also if there was nothing to relay: a batch may have relayed without a response to its commit.
                        self.appended(last);
                        if has_more {
                            continue;
                        }
                        // Each later batch that stays in the queue wakes the relay of its replica.
                        break;
                    }
                    Ok(RelayStep::Busy) => BUSY_MS,
                    Err(error) => {
                        tracing::debug!(%error, "relay step failed");
                        ERROR_MS
                    }
                };
                sleep(Duration::from_millis(fastrand::u64(pause))).await;
            }
        }
    }
}
