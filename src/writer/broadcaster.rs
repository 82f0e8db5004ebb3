//! Broadcasts: one at a time on a replica, in small batches, beside everybody's sends.
//!
//! - A batch holds some [`PART_BYTES`] of notices, so what a broadcast takes of memory does not depend on how many users it is for;
//!   and it is one of the commands of its transaction, beside which another transaction may be under way.
//! - Others wait for their turn, [`WAITING`] of them at most.
//! - The work is not the handler's, which is dropped when its client goes: a broadcast that has begun goes on.
//! - Users are told in the order of their ids. So a broadcast that could not go on, since the database is away or the server
//!   stops, is known by how many were told: `202` says all were, and [`Stopped`] says how far it came.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Broadcast, Writer};
use crate::domain::{Caller, Error, Metadata, UserId};

/// About how many bytes of notices are in one batch, and the least and most users: a batch that others wait for takes
/// milliseconds.
const PART_BYTES: usize = 512 * 1024;
const PART: (usize, usize) = (20, 500);

/// What a notice takes beside its data.
const NOTICE_BYTES: usize = 256;

/// The most broadcasts that wait for their turn.
const WAITING: usize = 8;

/// A notice to users, each once and in the order of their ids.
#[derive(Debug)]
pub struct Notices {
    /// Who: the service.
    pub caller: Caller,
    /// To whom.
    pub users: Vec<UserId>,
    /// What kind of notice it is, in the platform's words.
    pub kind: Option<String>,
    /// What it says.
    pub data: Metadata,
    /// What commits it.
    pub writer: Writer,
}

/// Why a broadcast has not reached all.
#[derive(Debug)]
pub enum Stopped {
    /// Too many wait already. Nobody was told.
    Busy,
    /// The first `done` users were told; the `in_doubt` after them may have been.
    After {
        /// Of how many it is known.
        done: usize,
        /// Of how many it is not.
        in_doubt: usize,
        /// Why it did not go on.
        error: Error,
    },
}

type Job = (Notices, oneshot::Sender<Result<(), Stopped>>);

/// Where broadcasts wait for their turn.
#[derive(Debug)]
pub struct Broadcaster {
    queue: mpsc::Sender<Job>,
}

impl Broadcaster {
    /// A broadcaster, and the work behind it, which ends after the batch under way when the server stops.
    pub fn new(stopping: CancellationToken) -> (Arc<Self>, impl Future<Output = ()> + Send) {
        let (queue, mut jobs) = mpsc::channel::<Job>(WAITING);
        let work = async move {
            while let Some(Some((notices, caller))) = stopping.run_until_cancelled(jobs.recv()).await {
                // Whoever asked may have gone.
                let _ = caller.send(carry_out(&notices, &stopping).await);
            }
        };
        (Arc::new(Self { queue }), work)
    }

    /// Tells everybody, and returns when all are told.
    pub async fn send(&self, notices: Notices) -> Result<(), Stopped> {
        let (caller, response) = oneshot::channel();
        self.queue.try_send((notices, caller)).map_err(|_| Stopped::Busy)?;
        let nothing = Stopped::After { done: 0, in_doubt: 0, error: Error::Unavailable };
        response.await.unwrap_or(Err(nothing))
    }
}

async fn carry_out(notices: &Notices, stopping: &CancellationToken) -> Result<(), Stopped> {
    let Notices { caller, users, kind, data, writer } = notices;
    let (least, most) = PART;
    let part = (PART_BYTES / (data.as_json().len() + NOTICE_BYTES)).clamp(least, most);
    let mut done = 0;
    for users in users.chunks(part) {
        let stopped = |in_doubt, error: Error| {
            tracing::warn!(%error, done, in_doubt, of = notices.users.len(), "broadcast stopped");
            Stopped::After { done, in_doubt, error }
        };
        if stopping.is_cancelled() {
            return Err(stopped(0, Error::Unavailable));
        }
        let command =
            Broadcast { caller: caller.clone(), users: users.to_vec(), kind: kind.clone(), data: data.clone() };
        writer.submit(command).await.map_err(|error| stopped(users.len(), error))?;
        done += users.len();
    }
    Ok(())
}
