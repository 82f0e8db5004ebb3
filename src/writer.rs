//! The one way in: every durable event is committed here.
//!
//! Handlers turn a request into a [`Command`] and hand it to the [`Writer`], a queue with one task behind it. The
//! task takes whatever has queued while the previous commit ran, judges it all under the locks of the topics
//! concerned, commits it in one transaction, and answers each. Alone, a command waits for nobody; under load one
//! commit serves hundreds.
//!
//! Invariants:
//! - A command is answered `Ok` only after its commit.
//! - A topic's row is locked from before the judging to the commit, so `seq` order is commit order, without holes.
//! - A refusal is a value: it takes nobody else's command along.
//! - A command, once queued, is carried out even if whoever sent it has gone.

mod acknowledger;
mod batch;
pub mod closer;
mod command;
mod commands;
mod known;
mod ledger;
mod notifier;
pub mod retention;
mod transaction;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::poll_immediate;
use tokio::sync::mpsc;
use tokio::time::timeout;

pub use acknowledger::Acknowledger;
pub use batch::Committed;
pub use command::{Command, Needs};
pub use commands::{
    AcceptRide, Broadcast, CancelRide, CloseRide, DeleteMessage, EditMessage, EraseMessage, Mark, MarkKind, PutRide,
    React, SendMessage, Sent, SetStatus,
};
pub use known::Known;
pub use ledger::Ledger;
pub use notifier::Notifier;

use self::batch::{Desk, Done};
use self::command::Job;
use crate::domain::{Error, Result, TraceContext};
use crate::store::Store;

/// The most commands in one transaction.
const LARGEST_BATCH: usize = 256;

/// The most commands that wait for the transaction before theirs.
const QUEUE: usize = 4 * LARGEST_BATCH;

/// How commands are carried out.
#[derive(Debug, Clone)]
pub struct Terms {
    /// How long a chat stays open after its ride's end.
    pub chat_grace: Duration,
    /// Whether the other replicas are told of commits.
    pub notify: bool,
}

/// Hands commands to the task that commits them.
#[derive(Debug, Clone)]
pub struct Writer {
    queue: mpsc::Sender<Box<dyn Job>>,
    known: Arc<Known>,
    patience: Duration,
    trace: Option<TraceContext>,
}

impl Writer {
    /// A writer, and the work behind it, which ends when every `Writer` is gone and all it was given is done.
    ///
    /// `committed` is told of every batch's events right after their commit. A command waits `patience` for its
    /// answer.
    pub fn new(
        store: Arc<Store>,
        terms: Terms,
        patience: Duration,
        committed: impl Fn(Committed) + Send + Sync + 'static,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, mut waiting) = mpsc::channel::<Box<dyn Job>>(QUEUE);
        let known = Arc::<Known>::default();
        let desk = Desk { store, terms, known: Arc::clone(&known) };
        let work = async move {
            let mut jobs = Vec::new();
            let mut done: Option<Done> = None;
            loop {
                // Nobody waits for a next batch that is not there.
                if waiting.is_empty() {
                    done.take().into_iter().for_each(|done| done.tell(&committed));
                }
                if waiting.recv_many(&mut jobs, LARGEST_BATCH).await == 0 {
                    break;
                }
                let mut flight = pin!(batch::run(&desk, std::mem::take(&mut jobs), &committed));
                // Sent before anybody is told of the last one: Postgres works meanwhile.
                let landed = poll_immediate(&mut flight).await;
                done.take().into_iter().for_each(|done| done.tell(&committed));
                done = match landed {
                    Some(done) => done,
                    None => flight.await,
                };
            }
        };
        (Self { queue, known, patience, trace: None }, work)
    }

    /// What it knows of rides; to be told of what others write.
    pub fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known)
    }

    /// The same, for commands that are traced there.
    pub fn traced(&self, trace: Option<TraceContext>) -> Self {
        Self { trace, ..self.clone() }
    }

    /// Has a command carried out. [`Error::Unavailable`] says that it may or may not have been, or may still be:
    /// trying it again is safe.
    pub async fn submit<C: Command>(&self, command: C) -> Result<C::Output> {
        let (job, answer) = command::job(command, self.trace);
        let answered = async {
            self.queue.send(job).await.map_err(|_| Error::Unavailable)?;
            answer.await.map_err(|_| Error::Unavailable)?
        };
        timeout(self.patience, answered).await.map_err(|_| Error::Unavailable)?
    }
}
