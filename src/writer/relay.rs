//! Gives each committed event its position in the feed, the one order for all rides and users.
//!
//! Each replica runs a relay, and each commit wakes its own. One works at a time, under a lock that Postgres releases when its
//! connection ends. So no replica is the leader, and none has to be replaced: a relay that finds the lock taken tries again until it
//! has had it, and what a replica that stops has left is found by any other in its next periodic step. Two relays at the same moment
//! cannot give two positions to an event, or one position twice: both happen under the lock.
//!
//! Where nothing reads the feed, positions can wait a little: the relay then takes more batches with each commit. A replica whose
//! readers wait for the feed relays what it is notified of, too, whichever replica has committed it.
//!
//! The order of a ride is kept, since a batch that follows another on the same ride is committed after it and noted after it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use crate::domain::Seq;
use crate::store::{Relayed, Store};

/// The most batches in one step.
const BATCHES: i64 = 500;

/// The time from one step to the next while the feed is read. What comes after a pause is relayed at once.
const GATHERING: Duration = Duration::from_millis(5);

/// The same while nothing on this replica reads the feed. Each step is a commit that competes with those of the sends for the disk,
/// and nobody waits for it.
const UNREAD: Duration = Duration::from_millis(250);

/// How long a relay waits before it tries again a lock that another has; jittered.
const BUSY_MS: std::ops::Range<u64> = 5..20;

/// How long a relay waits after an error; jittered.
const ERROR_MS: std::ops::Range<u64> = 200..1_000;

/// Wakes the relay.
#[derive(Debug, Default)]
pub struct Relay {
    work: Notify,
    /// A reader wants what is committed now.
    reader: Notify,
}

impl Relay {
    /// Notes that there is something to relay.
    pub fn wake(&self) {
        self.work.notify_one();
    }

    /// Notes that a reader begins, who is to find what is committed now.
    pub fn wake_for_reader(&self) {
        self.reader.notify_one();
    }

    /// Relays, for ever: when woken, and every `period` or so. `relayed` gets the end of the feed after each step; `is_read` returns
    /// whether anything on this replica waits for the feed.
    pub async fn run(&self, store: Arc<Store>, period: Duration, is_read: impl Fn() -> bool, relayed: impl Fn(Seq)) {
        let mut last_step = Instant::now();
        loop {
            tokio::select! {
                () = self.reader.notified() => {}
                () = sleep(period.mul_f64(0.8 + 0.4 * fastrand::f64())) => {}
                () = self.work.notified() => {
                    let pause = if is_read() { GATHERING } else { UNREAD };
                    tokio::select! {
                        () = self.reader.notified() => {}
                        () = sleep_until(last_step + pause) => {}
                    }
                }
            }
            last_step = Instant::now();
            loop {
                let pause = match store.relay(BATCHES).await {
                    Ok(Relayed::Passed) => continue,
                    Ok(Relayed::UpTo { last, has_more }) => {
                        relayed(last);
                        if has_more {
                            continue;
                        }
                        // What was committed since wakes its own replica's relay.
                        break;
                    }
                    Ok(Relayed::Nothing) => break,
                    Ok(Relayed::Busy) => BUSY_MS,
                    Err(error) => {
                        tracing::debug!(%error, "the feed cannot be written now");
                        ERROR_MS
                    }
                };
                sleep(Duration::from_millis(fastrand::u64(pause))).await;
            }
        }
    }
}
