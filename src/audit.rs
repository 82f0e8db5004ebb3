//! The audit log: collects what support and service users view and do, and writes it in batches.
//!
//! A request adds its entry to a queue. A task writes the queue: immediately after a pause, otherwise once a second. So no
//! request waits for its entry, and thousands of sends a second cost one transaction.
//!
//! - An entry that could not be written stays in the queue and is written again. Its id is its key, so it is stored once.
//! - The queue is bounded. While it is full, requests of support and service are rejected before they run: the server executes
//!   no such request that it cannot record.
//! - A replica that stops writes its queue. A replica that is killed loses the unwritten entries, those of about a second.
//! - A read that a user repeats within a minute is one entry on each replica, because polling repeats the same read.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::domain::{MessageId, UserId};
use crate::store::{AuditEntry, Store, StoreError};

/// The length of the queue from which requests that would add entries are rejected.
const QUEUE_LIMIT: usize = 16_384;

/// The most entries in one statement.
const BATCH_SIZE: usize = 1_000;

/// The time between two writes.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// The time within which a repeated read belongs to the same entry.
const READ_WINDOW: Duration = Duration::from_secs(60);

/// The most reads that are remembered for deduplication. Further reads are recorded each time.
const MAX_READS: usize = 10_000;

/// The key by which reads are deduplicated.
type ReadKey = (UserId, String, [Option<String>; 3], Option<MessageId>, Option<u16>);

/// The queue of audit entries that are not written yet.
#[derive(Debug)]
pub struct AuditLog {
    queue: Mutex<Queue>,
    added: Notify,
    /// Locked during a write, so that writes do not overlap.
    write_lock: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Queue {
    entries: VecDeque<AuditEntry>,
    /// The reads of the current window.
    reads: HashSet<ReadKey>,
    window_start: Instant,
}

impl Default for AuditLog {
    fn default() -> Self {
        let queue = Queue { entries: VecDeque::new(), reads: HashSet::new(), window_start: Instant::now() };
        Self { queue: Mutex::new(queue), added: Notify::new(), write_lock: tokio::sync::Mutex::default() }
    }
}

impl AuditLog {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the queue has room for the entry of another request.
    pub fn has_capacity(&self) -> bool {
        self.queue().entries.len() < QUEUE_LIMIT
    }

    /// The number of entries that are not written yet.
    pub fn pending(&self) -> usize {
        self.queue().entries.len()
    }

    /// Adds an entry, unless it is a read that was already recorded in the current window.
    pub fn record(&self, entry: AuditEntry, is_read: bool) {
        let mut queue = self.queue();
        if is_read && !queue.is_first(&entry) {
            return;
        }
        queue.entries.push_back(entry);
        drop(queue);
        self.added.notify_one();
    }

    /// Writes entries as they are added. Never returns.
    pub async fn run(&self, store: &Store) {
        loop {
            self.added.notified().await;
            let next = Instant::now() + WRITE_INTERVAL;
            if let Err(error) = self.flush(store).await {
                tracing::debug!(%error, "write of audit entries failed");
                self.added.notify_one();
            }
            sleep_until(next).await;
        }
    }

    /// Writes all entries. After an error the unwritten entries stay in the queue.
    pub async fn flush(&self, store: &Store) -> Result<(), StoreError> {
        let _guard = self.write_lock.lock().await;
        loop {
            let batch: Vec<_> = self.queue().entries.iter().take(BATCH_SIZE).cloned().collect();
            if batch.is_empty() {
                return Ok(());
            }
            store.put_audit(&batch).await?;
            // These are still the first entries: others only append, and the lock keeps other writes out.
            self.queue().entries.drain(..batch.len());
        }
    }
}

impl Queue {
    /// Whether a read is the first with its key in the current window.
    fn is_first(&mut self, entry: &AuditEntry) -> bool {
        if self.window_start.elapsed() >= READ_WINDOW {
            self.reads.clear();
            self.window_start = Instant::now();
        }
        let objects = [entry.ride.clone(), entry.subject.clone(), entry.webhook.clone()];
        let key = (entry.user.clone(), entry.action.clone(), objects, entry.message, entry.status);
        if self.reads.len() < MAX_READS { self.reads.insert(key) } else { !self.reads.contains(&key) }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::Time;

    fn entry(action: &str, ride: &str, status: u16) -> AuditEntry {
        AuditEntry {
            id: Uuid::now_v7(),
            at: Time::now(),
            user: UserId::parse("support_1").unwrap(),
            role: "support".to_owned(),
            action: action.to_owned(),
            ride: Some(ride.to_owned()),
            message: None,
            subject: None,
            webhook: None,
            status: Some(status),
            request: "r-1".to_owned(),
        }
    }

    #[test]
    fn a_read_repeated_within_a_minute_is_one_entry() {
        let log = AuditLog::default();
        for _ in 0..3 {
            log.record(entry("getHistory", "ride_1", 200), true);
        }
        assert_eq!(log.pending(), 1);
        log.record(entry("getHistory", "ride_2", 200), true);
        log.record(entry("getHistory", "ride_1", 404), true);
        log.record(entry("pollRide", "ride_1", 200), true);
        assert_eq!(log.pending(), 4, "other reads are entries of their own");
        for _ in 0..3 {
            log.record(entry("putRide", "ride_1", 200), false);
        }
        assert_eq!(log.pending(), 7, "each write is an entry");
        let a_minute_ago = Instant::now().checked_sub(READ_WINDOW).unwrap();
        log.queue().window_start = a_minute_ago;
        log.record(entry("getHistory", "ride_1", 200), true);
        assert_eq!(log.pending(), 8);
    }

    #[test]
    fn a_full_queue_has_no_capacity_and_keeps_all_entries() {
        let log = AuditLog::default();
        for n in 0..QUEUE_LIMIT {
            assert!(log.has_capacity(), "{n}");
            log.record(entry("sendMessage", "ride_1", 201), false);
        }
        assert!(!log.has_capacity());
        // An entry of a request that was admitted before.
        log.record(entry("sendMessage", "ride_1", 201), false);
        assert_eq!(log.pending(), QUEUE_LIMIT + 1);
    }

    #[test]
    fn the_remembered_reads_are_bounded() {
        let log = AuditLog::default();
        for n in 0..MAX_READS + 10 {
            log.record(entry("getRide", &format!("ride_{n}"), 200), true);
        }
        assert_eq!(log.queue().reads.len(), MAX_READS);
    }
}
