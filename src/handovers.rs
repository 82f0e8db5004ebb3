//! When messages were handed to participants' connections, for the trace of a message.
//!
//! A stream or poll notes what it hands over in a buffer of its replica, and a task writes the buffer once a second, in one statement, to a
//! table that is not in the write-ahead log. So the way of a message has no statement more, and a replica writes at most 4,096 rows a
//! second: what is handed over beyond them is counted, and not recorded. What a replica has not written when it is killed is lost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use crate::domain::{RideId, Seq, Time, UserId};
use crate::store::{Handover, Store, StoreError};

/// The most handovers between two writes.
const MOST: usize = 4_096;

/// The time between two writes.
const PERIOD: Duration = Duration::from_secs(1);

/// The seqs of a handover are fewer than this: so many after a message its handovers are searched for.
const SPAN: Seq = 1_000;

/// What was handed over and is not written yet.
#[derive(Debug)]
pub struct Handovers {
    is_on: bool,
    buffer: Mutex<Vec<Handover>>,
    recorded: AtomicU64,
    dropped: AtomicU64,
}

impl Handovers {
    /// An empty buffer; one that takes nothing unless `is_on`.
    pub fn new(is_on: bool) -> Self {
        Self { is_on, buffer: Mutex::default(), recorded: AtomicU64::new(0), dropped: AtomicU64::new(0) }
    }

    /// How many were recorded, and how many not because there were too many.
    pub fn counts(&self) -> (u64, u64) {
        (self.recorded.load(Ordering::Relaxed), self.dropped.load(Ordering::Relaxed))
    }

    /// Notes messages that are handed to a connection of `user` now, by ride and seq: those of a ride in the order of its log, and all of
    /// them that the user may see.
    pub fn record(&self, user: &UserId, transport: &'static str, messages: impl Iterator<Item = (RideId, Seq)>) {
        if !self.is_on {
            return;
        }
        // Under more load than is recorded, nothing is made that is dropped.
        if self.buffer.lock().unwrap_or_else(PoisonError::into_inner).len() >= MOST {
            self.dropped.fetch_add(messages.count() as u64, Ordering::Relaxed);
            return;
        }
        let mut handovers: Vec<Handover> = Vec::new();
        let mut at = None;
        for (ride, seq) in messages {
            match handovers.last_mut() {
                Some(last) if last.ride == ride && (last.first_seq..last.first_seq + SPAN).contains(&seq) => {
                    last.last_seq = seq;
                }
                _ => {
                    let at = *at.get_or_insert_with(Time::now);
                    handovers.push(Handover { ride, user: user.clone(), first_seq: seq, last_seq: seq, transport, at });
                }
            }
        }
        if handovers.is_empty() {
            return;
        }
        let count = handovers.len();
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MOST.saturating_sub(buffer.len()).min(count);
        buffer.extend(handovers.into_iter().take(room));
        drop(buffer);
        self.recorded.fetch_add(room as u64, Ordering::Relaxed);
        self.dropped.fetch_add((count - room) as u64, Ordering::Relaxed);
    }

    /// Writes what was noted, once a second, for ever.
    pub async fn run(&self, store: &Store) {
        loop {
            sleep(PERIOD).await;
            if let Err(error) = self.flush(store).await {
                tracing::debug!(%error, "handovers not recorded");
            }
        }
    }

    /// Writes what was noted. What cannot be written is dropped: it would be written late, and there is more to come.
    pub async fn flush(&self, store: &Store) -> Result<(), StoreError> {
        let noted = std::mem::take(&mut *self.buffer.lock().unwrap_or_else(PoisonError::into_inner));
        if noted.is_empty() {
            return Ok(());
        }
        let written = store.put_handovers(store.origin.id(), &noted).await;
        if written.is_err() {
            self.recorded.fetch_sub(noted.len() as u64, Ordering::Relaxed);
            self.dropped.fetch_add(noted.len() as u64, Ordering::Relaxed);
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ride(name: &str) -> RideId {
        RideId::parse(name).unwrap()
    }

    fn ranges(handovers: &Handovers) -> Vec<(String, Seq, Seq)> {
        let buffer = handovers.buffer.lock().unwrap();
        buffer.iter().map(|one| (one.ride.to_string(), one.first_seq, one.last_seq)).collect()
    }

    #[test]
    fn messages_that_are_handed_over_together_are_one_handover_of_each_ride() {
        let (handovers, user) = (Handovers::new(true), UserId::parse("rider_1").unwrap());
        let of = |name: &'static str, seqs: &[Seq]| seqs.iter().map(move |seq| (ride(name), *seq)).collect::<Vec<_>>();
        let messages = [of("a", &[2, 4, 5]), of("b", &[7]), of("a", &[6])].concat();
        handovers.record(&user, "sse", messages.into_iter());
        let expected = [("a", 2, 5), ("b", 7, 7), ("a", 6, 6)];
        assert_eq!(ranges(&handovers), expected.map(|(ride, first, last)| (ride.to_owned(), first, last)));
        // No longer than what is searched for a message.
        handovers.record(&user, "poll", of("c", &[1, 1_000, 1_001]).into_iter());
        assert_eq!(ranges(&handovers)[3..], [("c".to_owned(), 1, 1_000), ("c".to_owned(), 1_001, 1_001)]);
    }

    #[test]
    fn what_is_too_much_is_counted_and_takes_no_memory() {
        let (handovers, user) = (Handovers::new(true), UserId::parse("rider_1").unwrap());
        for seq in 0..5_000 {
            handovers.record(&user, "sse", std::iter::once((ride("a"), seq)));
        }
        assert_eq!((ranges(&handovers).len(), handovers.counts()), (MOST, (4_096, 904)));
        let off = Handovers::new(false);
        off.record(&user, "sse", std::iter::once((ride("a"), 1)));
        assert_eq!((ranges(&off).len(), off.counts()), (0, (0, 0)));
    }
}
