//! The one way in: every durable event is committed here.
//!
//! Handlers turn a request into a [`Command`] and hand it to the [`Writer`], a queue with one task behind it. The
//! task takes whatever has queued while the commits before it ran, judges it all under the locks of the topics
//! concerned, commits it in one transaction, and answers each. Alone, a command waits for nobody; under load one
//! commit serves hundreds. Two batches may be under way, of different rides (`queue.rs`).
//!
//! Invariants:
//! - A command is answered `Ok` only after its commit.
//! - A topic's row is locked from before the judging to the commit, or found unmoved since the judging when it is; so `seq`
//!   order is commit order, without holes.
//! - What is said on one ride is carried out, told and answered in the order in which it came.
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
mod queue;
mod recovery;
pub mod relay;
pub mod retention;
mod transaction;
pub mod undelivered;

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::poll_immediate;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

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
use self::queue::{Batch, Queue};
use crate::domain::{Error, Result, RideId, TraceContext};
use crate::store::Store;

/// The most commands in one transaction.
const LARGEST_BATCH: usize = 256;

/// The most commands that wait for their batch, besides those that wait for their ride.
const QUEUE: usize = 4 * LARGEST_BATCH;

/// The most batches under way. While one waits, for the disk or for what another replica has locked, the next need not. More
/// would be smaller, and cost more each.
const FLIGHTS: usize = 2;

/// For how long a batch waits to be as large as the one under way: longer than one takes that waits for the disk alone.
const GATHERING: Duration = Duration::from_millis(10);

/// How commands are carried out.
#[derive(Debug, Clone)]
pub struct Terms {
    /// How long a chat stays open after its ride's end.
    pub chat_grace: Duration,
    /// Whether events are noted for the feed.
    pub has_feed: bool,
    /// Who tells the other replicas of large commits, and knows whether they are told of any.
    pub notifier: Arc<Notifier>,
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
        let (queue, jobs) = mpsc::channel(QUEUE);
        let known = Arc::<Known>::default();
        let desk = Desk { store, terms, known: Arc::clone(&known) };
        let work = async move { carry_out(jobs, &desk, &committed).await };
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

/// Carries out all jobs that come, until no more can come.
async fn carry_out(mut jobs: mpsc::Receiver<Box<dyn Job>>, desk: &Desk, committed: &impl Fn(Committed)) {
    let mut queue = Queue::default();
    let mut flights = FuturesUnordered::new();
    let (mut last, mut may_come) = (1, true);
    let mut landed = Vec::new();
    let mut gathering = pin!(sleep(GATHERING));
    while may_come || !flights.is_empty() {
        let may_leave = flights.len() < FLIGHTS;
        tokio::select! {
            biased;
            Some((rides, done)) = flights.next(), if !flights.is_empty() => {
                queue.landed(&rides);
                landed.extend(done);
            }
            job = jobs.recv(), if may_come && may_leave && queue.room() > 0 => match job {
                Some(job) => queue.push(job),
                None => may_come = false,
            },
            () = &mut gathering, if may_leave && !gathering.is_elapsed() && !queue.is_empty() => {}
        }
        while flights.len() < FLIGHTS {
            while queue.room() > 0
                && let Ok(job) = jobs.try_recv()
            {
                queue.push(job);
            }
            // Beside another, one leaves that is no smaller: what each costs by itself, all that are in it share.
            let least = if flights.is_empty() || gathering.is_elapsed() { 1 } else { last };
            let Some(batch) = queue.batch(least) else { break };
            last = batch.jobs.len();
            gathering.as_mut().reset(Instant::now() + GATHERING);
            let mut flight = Box::pin(fly(desk, batch, committed));
            // Sent before anybody is told of the one before: Postgres works meanwhile.
            match poll_immediate(&mut flight).await {
                Some((rides, done)) => {
                    queue.landed(&rides);
                    landed.extend(done);
                }
                None => flights.push(flight),
            }
        }
        landed.drain(..).for_each(|done: Done| done.tell(committed));
    }
}

/// Carries out a batch; its rides are taken meanwhile.
async fn fly(desk: &Desk, batch: Batch, committed: &impl Fn(Committed)) -> (BTreeSet<RideId>, Option<Done>) {
    (batch.rides, batch::run(desk, batch.jobs, committed).await)
}
