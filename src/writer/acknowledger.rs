//! Deliveries that a reader's cursor acknowledges.
//!
//! Whoever asks for what lies past 7 has what lies before it. The first such acknowledgement of a reader is
//! written at once; those that follow within a second are one write after it. What was written is remembered for
//! a while, so that a poll that comes back with the same cursor costs nothing. An acknowledgement is never waited
//! for, and one that is lost comes again with the reader's next cursor.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Mark, MarkKind, Writer};
use crate::domain::{Caller, RideId, RideRole, RideSnapshot, Seq, UserId};

/// The shortest time between two writes for one reader.
const PACE: Duration = Duration::from_secs(1);

/// For how long a reader that has gone is remembered: longer than a poll may wait.
const MEMORY: Duration = Duration::from_secs(120);

/// The fewest readers that are worth forgetting.
const FORGET_FROM: usize = 1_024;

/// Writes deliveries, each reader's at its pace.
#[derive(Debug, Clone)]
pub struct Acknowledger {
    writer: Writer,
    readers: Arc<Mutex<Readers>>,
}

#[derive(Debug, Default)]
struct Readers {
    known: HashMap<(RideId, UserId), Reader>,
    forget_at: usize,
}

#[derive(Debug)]
struct Reader {
    /// How far it has acknowledged.
    up_to: Seq,
    /// Whether a task writes for it.
    is_writing: bool,
    /// Whether `up_to` has moved since that task looked.
    has_more: bool,
    seen: Instant,
}

impl Acknowledger {
    /// Acknowledgements through `writer`.
    pub fn new(writer: Writer) -> Self {
        Self { writer, readers: Arc::default() }
    }

    fn readers(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Others' messages up to `up_to` have reached the caller, who follows the ride of `snapshot`.
    pub fn delivered(&self, caller: &Caller, snapshot: &RideSnapshot, up_to: Seq) {
        let Some(access) = snapshot.access(caller).filter(|access| access.role != RideRole::System) else { return };
        if snapshot.receipts.of(&caller.user, access.role).delivered_seq >= up_to {
            return;
        }
        let key = (snapshot.ride.id.clone(), caller.user.clone());
        let mut readers = self.readers();
        readers.forget();
        let fresh = Reader { up_to: 0, is_writing: false, has_more: false, seen: Instant::now() };
        let reader = readers.known.entry(key.clone()).or_insert(fresh);
        reader.seen = Instant::now();
        if up_to <= reader.up_to {
            return;
        }
        reader.up_to = up_to;
        if std::mem::replace(&mut reader.is_writing, true) {
            reader.has_more = true;
        } else {
            tokio::spawn(self.clone().write(key, caller.clone(), up_to));
        }
    }

    async fn write(self, key: (RideId, UserId), caller: Caller, mut up_to: Seq) {
        loop {
            let mark = Mark { caller: caller.clone(), ride: key.0.clone(), kind: MarkKind::Delivered, up_to };
            if let Err(error) = self.writer.submit(mark).await {
                tracing::debug!(%error, ride.id = %key.0, "an acknowledgement was not written");
                self.readers().known.remove(&key);
                return;
            }
            sleep(PACE).await;
            let mut readers = self.readers();
            let Some(reader) = readers.known.get_mut(&key) else { return };
            if !std::mem::take(&mut reader.has_more) {
                reader.is_writing = false;
                return;
            }
            up_to = reader.up_to;
        }
    }
}

impl Readers {
    /// Forgets those who have gone, each time that as many have come as there were.
    fn forget(&mut self) {
        if self.known.len() < self.forget_at.max(FORGET_FROM) {
            return;
        }
        self.known.retain(|_, reader| reader.is_writing || reader.seen.elapsed() < MEMORY);
        self.forget_at = self.known.len() * 2;
    }
}
