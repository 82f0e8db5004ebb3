//! The one way in: every durable event is committed here.
//!
//! Handlers turn a request into a [`Command`] and hand it to the [`Writer`], a queue with one task behind it. The
//! task takes whatever has queued while the commits before it ran, judges it all under the locks of the topics
//! concerned, commits it in one transaction, and answers each. Alone, a command waits for nobody; under load one
//! commit serves hundreds. Two batches may be under way, of different rides; and two more that wait for locks (`queue.rs`).
//!
//! Invariants:
//! - A command is answered `Ok` only after its commit.
//! - A topic's row is locked from before the judging to the commit, or found unmoved since the judging when it is; so `seq`
//!   order is commit order, without holes.
//! - What is said on one ride is carried out, told and answered in the order in which it came.
//! - A refusal is a value: it takes nobody else's command along.
//! - A command, once queued, is carried out even if whoever sent it has gone; but one whose ride somebody else keeps locked
//!   is given up when its caller is told so, and nothing of it was done.
//! - What another session has locked delays nothing but what is about it: a batch waits for no topic that it can leave out,
//!   and the commands that wait for one ride keep no others out.

mod acknowledger;
mod batch;
mod broadcaster;
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
use tokio::time::{Instant, sleep, sleep_until, timeout};

pub use acknowledger::Acknowledger;
pub use batch::Committed;
pub use broadcaster::{Broadcaster, Notices, Stopped};
pub use command::{Command, Needs};
pub use commands::{
    AcceptRide, Broadcast, CancelRide, CloseRide, DeleteMessage, EditMessage, Edited, EraseMessage, EraseReactions,
    Mark, MarkKind, PutRide, React, ReopenRide, SendMessage, Sent, SetStatus,
};
pub use known::Known;
pub use ledger::Ledger;
pub use notifier::Notifier;

use self::batch::{Desk, Done};
use self::command::Job;
use self::queue::{Batch, Queue, Queued};
use crate::domain::{Content, ContentHash, ContentKey, Error, Metadata, Result, RideId, TraceContext};
use crate::store::Store;

/// The most commands in one transaction.
const LARGEST_BATCH: usize = 256;

/// The most commands that wait to be received, besides those that are ready and those that wait for their ride.
const QUEUE: usize = 4 * LARGEST_BATCH;

/// The most batches under way. While one waits, for the disk or for what another replica has locked, the next need not. More
/// would be smaller, and cost more each.
const FLIGHTS: usize = 2;

/// The most batches beside them that wait for locks: a connection each.
const WAITING_FLIGHTS: usize = 2;

/// For how long a batch waits to be as large as the one under way: longer than one takes that waits for the disk alone.
const GATHERING: Duration = Duration::from_millis(10);

/// How commands are carried out.
#[derive(Debug, Clone)]
pub struct Terms {
    /// How long a chat stays open after its ride's end, where the ride has no policy of its own.
    pub chat_grace: Duration,
    /// Whether events are noted for the feed.
    pub has_feed: bool,
    /// What contents are hashed with.
    pub content_key: ContentKey,
    /// Who tells the other replicas of large commits, and knows whether they are told of any.
    pub notifier: Arc<Notifier>,
}

/// Hands commands to the task that commits them.
#[derive(Debug, Clone)]
pub struct Writer {
    queue: mpsc::Sender<Box<dyn Job>>,
    known: Arc<Known>,
    content_key: ContentKey,
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
        let content_key = terms.content_key.clone();
        let desk = Desk { store, terms, known: Arc::clone(&known) };
        let work = async move { carry_out(jobs, &desk, patience, &committed).await };
        (Self { queue, known, content_key, patience, trace: None }, work)
    }

    /// What it knows of rides; to be told of what others write.
    pub fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known)
    }

    /// The hash of what a message is to be sent with.
    pub fn content_hash(&self, content: &Content, metadata: Option<&Metadata>) -> ContentHash {
        self.content_key.hash(content, metadata)
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
async fn carry_out(
    mut jobs: mpsc::Receiver<Box<dyn Job>>,
    desk: &Desk,
    patience: Duration,
    committed: &impl Fn(Committed),
) {
    let mut queue = Queue::new(patience);
    let mut flights = FuturesUnordered::new();
    let mut under_way = UnderWay::default();
    let (mut last, mut may_come) = (1, true);
    let mut gathering = pin!(sleep(GATHERING));
    while may_come || !flights.is_empty() || !queue.is_idle() {
        let may_leave = under_way.batches < FLIGHTS;
        let due = queue.next_due(under_way.waiting < WAITING_FLIGHTS);
        tokio::select! {
            biased;
            Some(landed) = flights.next(), if !flights.is_empty() => under_way.land(landed, &mut queue),
            job = jobs.recv(), if may_come && may_leave && queue.room() > 0 => match job {
                Some(job) => queue.push(job),
                None => may_come = false,
            },
            () = &mut gathering, if may_leave && !gathering.is_elapsed() && queue.has_ready() => {}
            () = async { if let Some(due) = due { sleep_until(due).await } }, if due.is_some() => {}
        }
        queue.release(Instant::now());
        loop {
            while queue.room() > 0
                && under_way.batches < FLIGHTS
                && let Ok(job) = jobs.try_recv()
            {
                queue.push(job);
            }
            // Beside another, one leaves that is no smaller: what each costs by itself, all that are in it share.
            let least = if under_way.batches == 0 || gathering.is_elapsed() { 1 } else { last };
            let batch = match under_way.batches < FLIGHTS {
                true => queue.batch(least),
                false => None,
            };
            if let Some(batch) = &batch {
                last = batch.jobs.len();
                gathering.as_mut().reset(Instant::now() + GATHERING);
            }
            let may_wait = under_way.waiting < WAITING_FLIGHTS;
            let batch = batch.or_else(|| may_wait.then(|| queue.waiting_batch(Instant::now())).flatten());
            let Some(batch) = batch else { break };
            under_way.leave(&batch);
            let mut flight = Box::pin(fly(desk, batch, committed));
            // Sent before anybody is told of the one before: Postgres works meanwhile.
            match poll_immediate(&mut flight).await {
                Some(landed) => under_way.land(landed, &mut queue),
                None => flights.push(flight),
            }
        }
        under_way.done.drain(..).for_each(|done| done.tell(committed));
    }
}

/// How many batches are under way, of each kind; and what those have done that are not, of which nobody has been told.
#[derive(Debug, Default)]
struct UnderWay {
    batches: usize,
    waiting: usize,
    done: Vec<Done>,
}

/// A batch that is no longer under way.
struct Landed {
    rides: BTreeSet<RideId>,
    waited: bool,
    done: Option<Done>,
    left_out: Vec<Queued>,
}

impl UnderWay {
    fn of(&mut self, waits: bool) -> &mut usize {
        if waits { &mut self.waiting } else { &mut self.batches }
    }

    fn leave(&mut self, batch: &Batch) {
        *self.of(batch.waits) += 1;
    }

    fn land(&mut self, landed: Landed, queue: &mut Queue) {
        *self.of(landed.waited) -= 1;
        queue.landed(&landed.rides, landed.left_out, Instant::now());
        self.done.extend(landed.done);
    }
}

/// Carries out a batch; its rides are taken meanwhile.
async fn fly(desk: &Desk, batch: Batch, committed: &impl Fn(Committed)) -> Landed {
    let (done, left_out) = batch::run(desk, batch.jobs, batch.waits, committed).await;
    Landed { rides: batch.rides, waited: batch.waits, done, left_out }
}
