//! Assigns each committed event its position in the feed, which is one order over all rides and users.
//!
//! Each replica runs a relay, and each commit wakes the relay of its replica. One relay works at a time, under a lock that Postgres
//! releases when its connection ends. So no replica is the leader, and none has to be replaced. A relay that finds the lock taken tries
//! again until it has had it. If a replica stops, the periodic step of any other relays its remaining events. Two relays at the same
//! moment cannot assign two positions to one event, or one position twice, because both happen under the lock.
//!
//! If nothing reads the feed, positions can wait a little. The relay then takes more batches with each commit. A replica whose readers
//! wait for the feed also relays when it is notified of commits of other replicas.
//!
//! The order of a ride's events is kept. A batch that follows another on the same ride is committed after it and recorded after it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use crate::domain::Seq;
use crate::store::{FeedStep, Store};

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

/// Wakes the relay task.
#[derive(Debug, Default)]
pub struct Relay {
    work: Notify,
    /// A reader waits for events that are committed now.
    reader: Notify,
}

impl Relay {
    /// Records that there are commits to relay.
    pub fn wake(&self) {
        self.work.notify_one();
    }

    /// Records that a reader begins, which must find the events that are committed now.
    pub fn wake_for_reader(&self) {
        self.reader.notify_one();
    }

    /// Relays when woken, and about every `period`, forever. `relayed` receives the feed's head after each step. `is_read` returns whether
    /// a reader on this replica waits for the feed.
    pub async fn run(&self, store: Arc<Store>, period: Duration, is_read: impl Fn() -> bool, relayed: impl Fn(Seq)) {
        let mut last_step = Instant::now();
        loop {
            tokio::select! {
                () = self.reader.notified() => {}
                () = sleep(period.mul_f64(0.8 + 0.4 * fastrand::f64())) => {}
                () = self.work.notified() => {
                    let pause = if is_read() { READ_INTERVAL } else { UNREAD_INTERVAL };
                    tokio::select! {
                        () = self.reader.notified() => {}
                        () = sleep_until(last_step + pause) => {}
                    }
                }
            }
            last_step = Instant::now();
            loop {
                let pause = match store.relay(BATCHES).await {
                    Ok(FeedStep::Advanced) => continue,
                    Ok(FeedStep::Appended { last, has_more }) => {
                        relayed(last);
                        if has_more {
                            continue;
                        }
                        // Each later commit wakes the relay of its replica.
                        break;
                    }
                    Ok(FeedStep::Nothing) => break,
                    Ok(FeedStep::Busy) => BUSY_MS,
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
