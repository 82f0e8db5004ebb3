//! Delivery acknowledgements by cursor.
//!
//! A reader that requests the events after a cursor has received all events up to it. No request waits for an acknowledgement. A lost
//! acknowledgement is repeated with the reader's next cursor, so many are written together:
//! - The first acknowledgement after a pause is written at once. Those that arrive shortly after it are written together. This makes it
//!   cheap when thousands of readers reconnect at once.
//! - Each is a command of its own, so a locked ride delays no other.
//! - A reader's acknowledgement is written at most once a second.
//! - The last written value is cached for a while. A poll that returns with the same cursor causes no write.
//!
//! The map is a queue first: an entry with a value to write must not be evicted. So a cache crate, which evicts by its own rules, does
//! not fit.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{ReceiptKind, UpdateReceipt, Writer};
use crate::domain::{Caller, Error, RideId, RideRole, RideSnapshot, Seq, UserId};

/// The minimum time between two rounds of writes.
const ROUND_INTERVAL: Duration = Duration::from_millis(200);
/// The minimum time between two writes for one reader.
const READER_INTERVAL: Duration = Duration::from_secs(1);

/// The maximum number of writes in progress. It is the size of one batch, so that other commands have room beside them.
const MAX_WRITES: usize = super::MAX_BATCH_SIZE;

/// How long the entry of a reader without requests is kept. It is longer than the maximum wait of a poll.
const READER_TTL: Duration = Duration::from_secs(120);

/// The minimum number of entries at which expired ones are evicted.
const EVICT_FROM: usize = 1_024;

/// A user who reads a ride.
type Key = (RideId, UserId);

/// Collects delivery acknowledgements, and writes them.
#[derive(Debug, Default)]
pub struct Acknowledger {
    readers: Mutex<Readers>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Readers {
    entries: HashMap<Key, Reader>,
    /// The readers with an acknowledgement to write, by when it may be written.
    waiting: BTreeSet<(Instant, Key)>,
    /// The number of entries at which expired ones are evicted next.
    evict_at: usize,
}

#[derive(Debug)]
struct Reader {
    caller: Caller,
    /// The reader's last acknowledged seq.
    up_to: Seq,
    /// Whether an acknowledgement waits to be written.
    waits: bool,
    /// When the next one may be written.
    due: Instant,
    last_seen: Instant,
}

impl Acknowledger {
    fn readers(&self) -> MutexGuard<'_, Readers> {
        // A std lock: held for a few map operations, never across an await.
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that other users' messages up to `up_to` have reached the caller, who reads the ride of `snapshot`.
    pub fn delivered(&self, caller: &Caller, snapshot: &RideSnapshot, up_to: Seq) {
        let Some(access) = snapshot.access(caller).filter(|access| access.role != RideRole::System) else { return };
        if snapshot.receipts.of(&caller.user, access.role).delivered_seq >= up_to {
            return;
        }
        if self.readers().record((snapshot.ride.id.clone(), caller.user.clone()), caller, up_to) {
            self.changed.notify_one();
        }
    }

    /// Writes acknowledgements, forever.
    pub async fn run(&self, writer: Writer) {
        let mut writes = FuturesUnordered::new();
        let mut pause = Instant::now();
        loop {
            let now = Instant::now();
            let room = MAX_WRITES - writes.len().min(MAX_WRITES);
            let mut next = Some(pause);
            if room > 0 && now >= pause {
                let (updates, due) = self.readers().take(now, room);
                next = due;
                if !updates.is_empty() {
                    // If more are waiting, the next round follows sooner.
                    pause = now + if updates.len() < room { ROUND_INTERVAL } else { ROUND_INTERVAL / 4 };
                    next = Some(pause);
                    writes.extend(updates.into_iter().map(|update| {
                        let (key, writing) = ((update.ride.clone(), update.caller.user.clone()), writer.submit(update));
                        async move { (key, writing.await) }
                    }));
                }
            }
            let is_full = writes.len() >= MAX_WRITES;
            let wake = async {
                match next {
                    _ if is_full => std::future::pending().await,
                    Some(next) if now < pause => sleep_until(next).await,
                    Some(due) => drop(timeout_at(due, self.changed.notified()).await),
                    None => self.changed.notified().await,
                }
            };
            tokio::select! {
                () = wake => {}
                Some((key, written)) = writes.next(), if !writes.is_empty() => {
                    if let Err(error @ (Error::Unavailable | Error::TooManyQueuedWrites | Error::Internal)) = written {
                        tracing::debug!(%error, "acknowledgement not written");
                        self.readers().remove_all(&[key]);
                    }
                }
            }
        }
    }
}

impl Readers {
    /// Records an acknowledgement. Returns whether there is a new one to write.
    fn record(&mut self, key: Key, caller: &Caller, up_to: Seq) -> bool {
        self.evict();
        let now = Instant::now();
        let reader = self.entries.entry(key.clone()).or_insert_with(|| Reader {
            caller: caller.clone(),
            up_to: 0,
            waits: false,
            due: now,
            last_seen: now,
        });
        reader.last_seen = now;
        if up_to <= reader.up_to {
            return false;
        }
        reader.up_to = up_to;
        reader.caller.clone_from(caller);
        if std::mem::replace(&mut reader.waits, true) {
            return false;
        }
        self.waiting.insert((reader.due.max(now), key))
    }

    /// Removes the acknowledgements that may be written now, at most `max`. Also returns when the next one may be written.
    fn take(&mut self, now: Instant, max: usize) -> (Vec<UpdateReceipt>, Option<Instant>) {
        let mut updates = Vec::new();
        while updates.len() < max
            && let Some((due, _)) = self.waiting.first()
            && *due <= now
            && let Some((_, key)) = self.waiting.pop_first()
        {
            let Some(reader) = self.entries.get_mut(&key) else { continue };
            reader.waits = false;
            reader.due = now + READER_INTERVAL;
            let (caller, up_to) = (reader.caller.clone(), reader.up_to);
            updates.push(UpdateReceipt { caller, ride: key.0, kind: ReceiptKind::Delivered, up_to });
        }
        (updates, self.waiting.first().map(|(due, _)| *due))
    }

    /// Removes readers whose write has failed. Their next cursor repeats the acknowledgement.
    fn remove_all(&mut self, keys: &[Key]) {
        for key in keys {
            if self.entries.get(key).is_some_and(|reader| !reader.waits) {
                self.entries.remove(key);
            }
        }
    }

    /// Evicts expired entries, each time the number of entries has doubled.
    fn evict(&mut self) {
        if self.entries.len() < self.evict_at.max(EVICT_FROM) {
            return;
        }
        self.entries.retain(|_, reader| reader.waits || reader.last_seen.elapsed() < READER_TTL);
        self.evict_at = self.entries.len() * 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Role, Time, UserId};

    fn caller(name: &str) -> Caller {
        Caller {
            user: UserId::parse(name).unwrap(),
            role: Role::Rider,
            issued_at: None,
            key: None,
            expires_at: Time::now(),
        }
    }

    fn key(name: &str) -> Key {
        (RideId::parse("ride").unwrap(), UserId::parse(name).unwrap())
    }

    fn record(readers: &mut Readers, name: &str, up_to: Seq) -> bool {
        readers.record(key(name), &caller(name), up_to)
    }

    fn seqs(updates: &[UpdateReceipt]) -> Vec<(&str, Seq)> {
        updates.iter().map(|update| (update.caller.user.as_str(), update.up_to)).collect()
    }

    #[test]
    fn a_waiting_reader_is_written_once_with_its_last_seq() {
        let mut readers = Readers::default();
        assert!(record(&mut readers, "a", 3));
        assert!(record(&mut readers, "b", 4));
        assert!(!record(&mut readers, "a", 5), "it waits already");
        let (updates, next) = readers.take(Instant::now(), MAX_WRITES);
        assert_eq!(seqs(&updates), [("a", 5), ("b", 4)]);
        assert_eq!(next, None);
    }

    #[test]
    fn a_reader_is_written_at_most_once_per_interval_and_not_twice_for_the_same_seq() {
        let mut readers = Readers::default();
        record(&mut readers, "a", 3);
        let now = Instant::now();
        readers.take(now, MAX_WRITES);
        assert!(!record(&mut readers, "a", 3));
        assert!(record(&mut readers, "a", 4));
        assert_eq!(readers.take(now, MAX_WRITES).1, Some(now + READER_INTERVAL));
        assert_eq!(seqs(&readers.take(now + READER_INTERVAL, MAX_WRITES).0), [("a", 4)]);
    }

    #[test]
    fn a_round_has_at_most_the_maximum_number_of_writes() {
        let mut readers = Readers::default();
        for number in 0..MAX_WRITES + 1 {
            record(&mut readers, &format!("user-{number}"), 1);
        }
        let now = Instant::now();
        assert_eq!([readers.take(now, MAX_WRITES).0.len(), readers.take(now, MAX_WRITES).0.len()], [MAX_WRITES, 1]);
    }

    #[test]
    fn after_a_failure_the_same_seq_is_written_again() {
        let mut readers = Readers::default();
        record(&mut readers, "a", 3);
        let now = Instant::now();
        readers.take(now, MAX_WRITES);
        readers.remove_all(&[key("a")]);
        assert!(record(&mut readers, "a", 3));
    }
}
