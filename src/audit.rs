//! The audit log: collects what support and service users view and do, and writes it in batches.
//!
//! A request puts its entry into a queue. A task writes the queue: at once where nothing came for a while, else once a second. So
//! no request waits for its entry, and thousands of sends a second cost one transaction.
//!
//! - An entry that could not be written stays in the queue and is written again. Its id is its key, so it is stored once.
//! - The queue is bounded. When it is full, requests of support and service are rejected before they are carried out: the server does
//!   nothing for them that it cannot record.
//! - A replica that stops writes what it has. One that is killed loses what it has not written, about a second of it.
//! - A read that a user repeats within a minute is one entry on each replica: whoever polls reads the same again and again.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::domain::{MessageId, UserId};
use crate::store::{AuditEntry, Store, StoreError};

/// With so many entries in the queue, requests that would add others are rejected.
const FULL: usize = 16_384;

/// The most entries of a statement.
const BATCH: usize = 1_000;

/// The time from one write to the next.
const PERIOD: Duration = Duration::from_secs(1);

/// How long a read that is repeated belongs to the same entry, at most.
const MINUTE: Duration = Duration::from_secs(60);

/// The most reads that are remembered; others are recorded each time.
const READS: usize = 10_000;

/// What a read is about: the same is recorded once a minute.
type Read = (UserId, String, [Option<String>; 3], Option<MessageId>, Option<u16>);

/// The audit log, as far as it is not written yet.
#[derive(Debug)]
pub struct AuditLog {
    queue: Mutex<Queue>,
    work: Notify,
    /// Held by whoever writes.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Queue {
    entries: VecDeque<AuditEntry>,
    /// Reads of this minute.
    reads: HashSet<Read>,
    minute: Instant,
}

impl Default for AuditLog {
    fn default() -> Self {
        let queue = Queue { entries: VecDeque::new(), reads: HashSet::new(), minute: Instant::now() };
        Self { queue: Mutex::new(queue), work: Notify::new(), turn: tokio::sync::Mutex::default() }
    }
}

impl AuditLog {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is room for the entry of another request.
    pub fn has_room(&self) -> bool {
        self.queue().entries.len() < FULL
    }

    /// How many entries are not written yet.
    pub fn waiting(&self) -> usize {
        self.queue().entries.len()
    }

    /// Adds an entry, unless it is of a read that was recorded within the minute.
    pub fn record(&self, entry: AuditEntry, is_read: bool) {
        let mut queue = self.queue();
        if is_read && !queue.is_first(&entry) {
            return;
        }
        queue.entries.push_back(entry);
        drop(queue);
        self.work.notify_one();
    }

    /// Writes entries, for ever.
    pub async fn run(&self, store: &Store) {
        loop {
            self.work.notified().await;
            let next = Instant::now() + PERIOD;
            if let Err(error) = self.flush(store).await {
                tracing::debug!(%error, "audit entries cannot be written now");
                self.work.notify_one();
            }
            sleep_until(next).await;
        }
    }

    /// Writes all entries. Those that cannot be written stay.
    pub async fn flush(&self, store: &Store) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        loop {
            let batch: Vec<_> = self.queue().entries.iter().take(BATCH).cloned().collect();
            if batch.is_empty() {
                return Ok(());
            }
            store.put_audit(&batch).await?;
            // Others are added behind them, and nobody else takes any away.
            self.queue().entries.drain(..batch.len());
        }
    }
}

impl Queue {
    /// Whether a read is the first of its kind within the minute.
    fn is_first(&mut self, entry: &AuditEntry) -> bool {
        if self.minute.elapsed() >= MINUTE {
            self.reads.clear();
            self.minute = Instant::now();
        }
        let named = [entry.ride.clone(), entry.subject.clone(), entry.webhook.clone()];
        let read = (entry.user.clone(), entry.action.clone(), named, entry.message, entry.status);
        if self.reads.len() < READS { self.reads.insert(read) } else { !self.reads.contains(&read) }
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
    fn a_read_that_is_repeated_within_a_minute_is_one_entry() {
        let log = AuditLog::default();
        for _ in 0..3 {
            log.record(entry("getHistory", "ride_1", 200), true);
        }
        assert_eq!(log.waiting(), 1);
        log.record(entry("getHistory", "ride_2", 200), true);
        log.record(entry("getHistory", "ride_1", 404), true);
        log.record(entry("pollRide", "ride_1", 200), true);
        assert_eq!(log.waiting(), 4, "others are entries of their own");
        for _ in 0..3 {
            log.record(entry("putRide", "ride_1", 200), false);
        }
        assert_eq!(log.waiting(), 7, "each write is one");
        let a_minute_ago = Instant::now().checked_sub(MINUTE).unwrap();
        log.queue().minute = a_minute_ago;
        log.record(entry("getHistory", "ride_1", 200), true);
        assert_eq!(log.waiting(), 8);
    }

    #[test]
    fn a_full_queue_says_so_and_loses_nothing() {
        let log = AuditLog::default();
        for n in 0..FULL {
            assert!(log.has_room(), "{n}");
            log.record(entry("sendMessage", "ride_1", 201), false);
        }
        assert!(!log.has_room());
        // One that was let in before.
        log.record(entry("sendMessage", "ride_1", 201), false);
        assert_eq!(log.waiting(), FULL + 1);
    }

    #[test]
    fn reads_that_are_remembered_are_bounded() {
        let log = AuditLog::default();
        for n in 0..READS + 10 {
            log.record(entry("getRide", &format!("ride_{n}"), 200), true);
        }
        assert_eq!(log.queue().reads.len(), READS);
    }
}
