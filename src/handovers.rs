//! Records when messages were handed to participants' connections, for the trace of a message.
//!
//! A stream or poll adds its handovers to a buffer of its replica. A task writes the buffer once a second, in one statement, to an unlogged
//! table. So the path of a message has no additional statement, and a replica writes at most 4,096 rows a second. Handovers beyond that
//! are counted, but not recorded. If a replica is killed, its unwritten handovers are lost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;

use crate::domain::{RideId, Seq, ShardMap, Sharded, Time, UserId};
use crate::store::{Handover, Store, StoreError};

/// The maximum number of handovers between two writes.
const MAX_BUFFERED: usize = 4_096;

/// The time between two writes.
const PERIOD: Duration = Duration::from_secs(1);

/// The maximum number of seqs that one handover spans. The search for a message's handovers relies on it.
const MAX_SPAN: Seq = 1_000;

/// Buffers handovers until they are written.
#[derive(Debug)]
pub struct HandoverRecorder {
    is_on: bool,
    buffer: Mutex<Vec<Handover>>,
    recorded: AtomicU64,
    dropped: AtomicU64,
}

impl HandoverRecorder {
    /// Creates an empty buffer. It records nothing unless `is_on`.
    pub fn new(is_on: bool) -> Self {
        Self { is_on, buffer: Mutex::default(), recorded: AtomicU64::new(0), dropped: AtomicU64::new(0) }
    }

    /// Returns how many handovers were recorded, and how many were dropped because there were too many.
    pub fn counts(&self) -> (u64, u64) {
        (self.recorded.load(Ordering::Relaxed), self.dropped.load(Ordering::Relaxed))
    }

    /// Records that messages are handed to a connection of `user` now. Each is given by ride and seq, those of a ride in the order of its
    /// log, and without omitting any that the user may see.
    pub fn record(&self, user: &UserId, transport: &'static str, messages: impl Iterator<Item = (RideId, Seq)>) {
        if !self.is_on {
            return;
        }
        // Under high load, no handover is built that would be dropped.
        if self.buffer.lock().unwrap_or_else(PoisonError::into_inner).len() >= MAX_BUFFERED {
            self.dropped.fetch_add(messages.count() as u64, Ordering::Relaxed);
            return;
        }
        let mut handovers: Vec<Handover> = Vec::new();
        let mut at = None;
        for (ride, seq) in messages {
            match handovers.last_mut() {
                Some(last) if last.ride == ride && (last.first_seq..last.first_seq + MAX_SPAN).contains(&seq) => {
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
        let room = MAX_BUFFERED.saturating_sub(buffer.len()).min(count);
        buffer.extend(handovers.into_iter().take(room));
        drop(buffer);
        self.recorded.fetch_add(room as u64, Ordering::Relaxed);
        self.dropped.fetch_add((count - room) as u64, Ordering::Relaxed);
    }

    /// Writes the buffered handovers once a second, forever.
    pub async fn run(&self, stores: &Sharded<Arc<Store>>) {
        loop {
            sleep(PERIOD).await;
            if let Err(error) = self.flush(stores).await {
                tracing::debug!(%error, "handovers not recorded");
            }
        }
    }

    /// Writes the buffered handovers, each to the shard of its ride. If this fails, they are dropped, because a later write has its own
    /// to record.
    pub async fn flush(&self, stores: &Sharded<Arc<Store>>) -> Result<(), StoreError> {
        let buffered = std::mem::take(&mut *self.buffer.lock().unwrap_or_else(PoisonError::into_inner));
        let by_shard = ShardMap::group(buffered, |handover| stores.map().of_ride(&handover.ride));
        let writing = by_shard.into_iter().map(async |(shard, handovers)| {
            let store = stores.get(shard);
            let written = store.put_handovers(store.origin.id(), &handovers).await;
            if written.is_err() {
                self.recorded.fetch_sub(handovers.len() as u64, Ordering::Relaxed);
                self.dropped.fetch_add(handovers.len() as u64, Ordering::Relaxed);
            }
            written
        });
        join_all(writing).await.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ride(name: &str) -> RideId {
        RideId::parse(name).unwrap()
    }

    fn ranges(handovers: &HandoverRecorder) -> Vec<(String, Seq, Seq)> {
        let buffer = handovers.buffer.lock().unwrap();
        buffer.iter().map(|one| (one.ride.to_string(), one.first_seq, one.last_seq)).collect()
    }

    #[test]
    fn messages_that_are_handed_over_together_are_one_handover_per_ride() {
        let (handovers, user) = (HandoverRecorder::new(true), UserId::parse("rider_1").unwrap());
        let of = |name: &'static str, seqs: &[Seq]| seqs.iter().map(move |seq| (ride(name), *seq)).collect::<Vec<_>>();
        let messages = [of("a", &[2, 4, 5]), of("b", &[7]), of("a", &[6])].concat();
        handovers.record(&user, "sse", messages.into_iter());
        let expected = [("a", 2, 5), ("b", 7, 7), ("a", 6, 6)];
        assert_eq!(ranges(&handovers), expected.map(|(ride, first, last)| (ride.to_owned(), first, last)));
        // A handover is no longer than the range that is searched for a message.
        handovers.record(&user, "poll", of("c", &[1, 1_000, 1_001]).into_iter());
        assert_eq!(ranges(&handovers)[3..], [("c".to_owned(), 1, 1_000), ("c".to_owned(), 1_001, 1_001)]);
    }

    #[test]
    fn handovers_beyond_the_maximum_are_counted_and_not_buffered() {
        let (handovers, user) = (HandoverRecorder::new(true), UserId::parse("rider_1").unwrap());
        for seq in 0..5_000 {
            handovers.record(&user, "sse", std::iter::once((ride("a"), seq)));
        }
        assert_eq!((ranges(&handovers).len(), handovers.counts()), (MAX_BUFFERED, (4_096, 904)));
        let off = HandoverRecorder::new(false);
        off.record(&user, "sse", std::iter::once((ride("a"), 1)));
        assert_eq!((ranges(&off).len(), off.counts()), (0, (0, 0)));
    }
}
