//! Broadcasts: one at a time per replica, in small batches between the other commands.
//!
//! - A batch holds about [`PART_BYTES`] of notices, so a broadcast's memory use does not depend on the number of its recipients. Each
//!   batch is one command of a transaction in each shard of its users, beside which another transaction may be in flight.
//! - Other broadcasts wait in a queue, at most [`QUEUE_CAPACITY`] of them.
//! - A broadcast does not run in its handler, which is dropped when its client disconnects. A broadcast that has begun goes on.
//! - Users are notified in the order of their ids. If a broadcast cannot go on, because the database is unavailable or the server stops,
//!   the number of notified users therefore identifies them. `202` means that all were notified. A [`BroadcastError`] contains the number.

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Broadcast, Writer};
use crate::domain::{Caller, Error, Metadata, ShardMap, Sharded, UserId};

/// The approximate number of bytes of notices in one batch, and the minimum and maximum number of users. A batch takes milliseconds,
/// because other commands wait for it.
const PART_BYTES: usize = 512 * 1024;
const PART: (usize, usize) = (20, 500);

/// The size of a notice without its data.
const NOTICE_BYTES: usize = 256;

/// The maximum number of broadcasts that wait.
const QUEUE_CAPACITY: usize = 8;

/// A notice to users, each once and in the order of their ids.
#[derive(Debug)]
pub struct BroadcastRequest {
    /// The service.
    pub caller: Caller,
    /// The recipients.
    pub users: Vec<UserId>,
    /// The notice's type, which the platform defines.
    pub kind: Option<String>,
    /// The notice's data.
    pub data: Metadata,
    /// The writers that commit it.
    pub writers: Sharded<Writer>,
}

/// Why a broadcast has not reached all users.
#[derive(Debug)]
pub enum BroadcastError {
    /// Too many broadcasts wait already. No user was notified.
    QueueFull,
    /// The first `done` users were notified. The next `in_doubt` users may have been.
    Interrupted {
        /// The number of users who were notified.
        done: usize,
        /// The number of users for whom the outcome is unknown.
        in_doubt: usize,
        /// Why the broadcast did not continue.
        error: Error,
    },
}

type QueuedBroadcast = (BroadcastRequest, oneshot::Sender<Result<(), BroadcastError>>);

/// The queue of broadcasts.
#[derive(Debug)]
pub struct Broadcaster {
    queue: mpsc::Sender<QueuedBroadcast>,
}

impl Broadcaster {
    /// Returns a broadcaster and its task. When the server stops, the task ends after its current batch.
    pub fn new(stopping: CancellationToken) -> (Arc<Self>, impl Future<Output = ()> + Send) {
        let (queue, mut requests) = mpsc::channel::<QueuedBroadcast>(QUEUE_CAPACITY);
        let task = async move {
            while let Some(Some((request, caller))) = stopping.run_until_cancelled(requests.recv()).await {
                // The caller may have gone.
                let _ = caller.send(run(&request, &stopping).await);
            }
        };
        (Arc::new(Self { queue }), task)
    }

    /// Queues a broadcast, and returns when all users are notified.
    pub async fn send(&self, request: BroadcastRequest) -> Result<(), BroadcastError> {
        let (caller, response) = oneshot::channel();
        self.queue.try_send((request, caller)).map_err(|_| BroadcastError::QueueFull)?;
        let stopped = BroadcastError::Interrupted { done: 0, in_doubt: 0, error: Error::Unavailable };
        response.await.unwrap_or(Err(stopped))
    }
}

async fn run(request: &BroadcastRequest, stopping: &CancellationToken) -> Result<(), BroadcastError> {
    let BroadcastRequest { caller, users, kind, data, writers } = request;
    let (min, max) = PART;
    let part = (PART_BYTES / (data.as_json().len() + NOTICE_BYTES)).clamp(min, max);
    let mut done = 0;
    for users in users.chunks(part) {
        let interrupted = |in_doubt, error: Error| {
            tracing::warn!(%error, done, in_doubt, of = request.users.len(), "broadcast interrupted");
            BroadcastError::Interrupted { done, in_doubt, error }
        };
        if stopping.is_cancelled() {
            return Err(interrupted(0, Error::Unavailable));
        }
        let by_shard = ShardMap::group(users.iter().cloned(), |user| writers.map().of_user(user));
        let committing = by_shard.into_iter().map(|(shard, users)| {
            let command = Broadcast { caller: caller.clone(), users, kind: kind.clone(), data: data.clone() };
            writers.get(shard).submit(command)
        });
        // All of them end, so that the number of users whose outcome is unknown is final.
        let committed = join_all(committing).await.into_iter().collect::<Result<(), _>>();
        committed.map_err(|error| interrupted(users.len(), error))?;
        done += users.len();
    }
    Ok(())
}
