//! The only path by which durable events are committed.
//!
//! A handler turns a request into a [`Command`] and submits it to the [`Writer`]: a queue with one task behind it. The task
//! takes all commands that were queued while the previous commits ran. It applies them to a [`BatchState`], commits the result in
//! one transaction, and responds to each command. There is no timer for a single command: it waits for no other. Under load, one
//! commit serves hundreds of commands. Two batches of different rides may be in flight. Two more may wait for locks (`queue.rs`).
//!
//! Invariants:
//! - The response to a command is `Ok` only after its commit.
//! - A batch either locks a topic's row from before its commands are applied until the commit, or checks at the commit that the
//!   topic has not changed since. Therefore `seq` order is commit order, without holes.
//! - The commands of one ride are applied, published and responded to in the order of their arrival.
//! - The rejection of a command is a value. It does not fail other commands of the batch.
//! - A queued command is carried out even if its caller has gone. The exception is a command whose ride another session keeps
//!   locked. The writer gives it up when its caller gets a timeout, and nothing of it is stored.
//! - A lock of another session delays only the commands about the locked topic. A batch defers such commands, and commands that
//!   wait for one ride take no capacity from others.

mod acknowledger;
mod batch;
mod batch_state;
mod broadcaster;
pub mod closer;
mod command;
mod commands;
mod notifier;
pub mod outbox;
mod queue;
mod recovery;
pub mod relay;
pub mod retention;
mod ride_cache;
mod stored_batch;
mod stored_events;
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
pub use batch_state::{BatchRules, BatchState};
pub use broadcaster::{BroadcastError, BroadcastRequest, Broadcaster};
pub use command::{Command, ReadSet};
pub use commands::{
    AcceptRide, Broadcast, CancelRide, CloseRide, DeleteMessage, EditMessage, Edited, EraseMessage, EraseReactions,
    PutRide, React, ReceiptKind, ReceiveRows, ReopenRide, SendMessage, Sent, SetStatus, UpdateReceipt,
};
pub use notifier::Notifier;
pub use ride_cache::RideCache;
pub use stored_batch::CommittedBatch;
pub use stored_events::Relayed;

use self::command::AnyCommand;
use self::queue::{Batch, Queue, QueuedCommand};
use self::relay::Relay;
use self::stored_batch::{BatchContext, StoredBatch};
use crate::domain::{Content, ContentHash, ContentKey, Error, Metadata, Result, RideId, TraceContext};
use crate::store::Store;

/// The maximum number of commands in one transaction.
const MAX_BATCH_SIZE: usize = 256;

/// The capacity of the channel to the writer task. Commands that are ready or parked in the [`Queue`] do not count.
const CHANNEL_CAPACITY: usize = 4 * MAX_BATCH_SIZE;

/// The maximum number of batches in flight. While one batch waits for the disk or for a lock of another replica, the next can
/// run. More batches in flight would be smaller, and each would cost more.
const MAX_IN_FLIGHT: usize = 2;

/// The maximum number of additional batches that wait for locks. Each uses a connection.
const MAX_WAITING_IN_FLIGHT: usize = 2;

/// The maximum time for which a batch waits to become as large as the batch in flight. It is longer than a batch takes that waits
/// for the disk alone.
const BATCH_DELAY: Duration = Duration::from_millis(10);

/// The configuration of the writer.
#[derive(Debug, Clone)]
pub struct WriterConfig {
    /// What batches decide by.
    pub rules: BatchRules,
    /// Commits are recorded for this relay of the feed, if there is a feed.
    pub relay: Option<Arc<Relay>>,
    /// The key for content hashes.
    pub content_key: ContentKey,
    /// Notifies the other replicas of large commits, unless notifications are off.
    pub notifier: Arc<Notifier>,
}

/// Submits commands to the task that commits them.
#[derive(Debug, Clone)]
pub struct Writer {
    queue: mpsc::Sender<Box<dyn AnyCommand>>,
    ride_cache: Arc<RideCache>,
    content_key: ContentKey,
    response_timeout: Duration,
    trace: Option<TraceContext>,
}

impl Writer {
    /// Returns a writer and its task. The task ends when every `Writer` is dropped and all submitted commands are done.
    ///
    /// `on_commit` is called with every batch's events right after their commit. A command waits `response_timeout` for its
    /// response.
    pub fn new(
        store: Arc<Store>,
        config: WriterConfig,
        response_timeout: Duration,
        on_commit: impl Fn(CommittedBatch) + Send + Sync + 'static,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, commands) = mpsc::channel(CHANNEL_CAPACITY);
        let ride_cache = Arc::<RideCache>::default();
        let content_key = config.content_key.clone();
        let context = BatchContext { store, config, ride_cache: Arc::clone(&ride_cache) };
        let task = async move { run_batches(commands, &context, response_timeout, &on_commit).await };
        (Self { queue, ride_cache, content_key, response_timeout, trace: None }, task)
    }

    /// Returns the writer's cache of rides, which must be updated with the writes of other replicas.
    pub fn ride_cache(&self) -> Arc<RideCache> {
        Arc::clone(&self.ride_cache)
    }

    /// Returns the hash of a message's content and metadata.
    pub fn content_hash(&self, content: &Content, metadata: Option<&Metadata>) -> ContentHash {
        self.content_key.hash(content, metadata)
    }

    /// Returns a handle on the same writer whose commands belong to the given trace.
    pub fn traced(&self, trace: Option<TraceContext>) -> Self {
        Self { trace, ..self.clone() }
    }

    /// Submits a command and waits for its outcome.
    ///
    /// [`Error::Unavailable`] means that the command may be committed, now or later. A retry is safe.
    pub async fn submit<C: Command>(&self, command: C) -> Result<C::Output> {
        let (command, response) = command::pending(command, self.trace);
        let responded = async {
            self.queue.send(command).await.map_err(|_| Error::Unavailable)?;
            response.await.map_err(|_| Error::Unavailable)?
        };
        timeout(self.response_timeout, responded).await.map_err(|_| Error::Unavailable)?
    }
}

/// Carries out all commands from the channel, until the channel is closed and all of them are done.
async fn run_batches(
    mut commands: mpsc::Receiver<Box<dyn AnyCommand>>,
    context: &BatchContext,
    response_timeout: Duration,
    on_commit: &impl Fn(CommittedBatch),
) {
    let mut queue = Queue::new(response_timeout);
    let mut running = FuturesUnordered::new();
    let mut in_flight = InFlight::default();
    let (mut last_size, mut is_open) = (1, true);
    let mut batch_delay = pin!(sleep(BATCH_DELAY));
    while is_open || !running.is_empty() || !queue.is_idle() {
        let may_start = in_flight.batches < MAX_IN_FLIGHT;
        let due = queue.next_due(in_flight.waiting < MAX_WAITING_IN_FLIGHT);
        tokio::select! {
            biased;
            Some(finished) = running.next(), if !running.is_empty() => in_flight.complete(finished, &mut queue),
            command = commands.recv(), if is_open && may_start && queue.free_capacity() > 0 => match command {
                Some(command) => queue.push(command),
                None => is_open = false,
            },
            () = &mut batch_delay, if may_start && !batch_delay.is_elapsed() && queue.has_ready() => {}
            () = async { if let Some(due) = due { sleep_until(due).await } }, if due.is_some() => {}
        }
        queue.make_due_ready(Instant::now());
        loop {
            while queue.free_capacity() > 0
                && in_flight.batches < MAX_IN_FLIGHT
                && let Ok(command) = commands.try_recv()
            {
                queue.push(command);
            }
            // A second batch in flight is no smaller than the first, because all its commands share the batch's fixed cost.
            let min_size = if in_flight.batches == 0 || batch_delay.is_elapsed() { 1 } else { last_size };
            let batch = match in_flight.batches < MAX_IN_FLIGHT {
                true => queue.batch(min_size),
                false => None,
            };
            if let Some(batch) = &batch {
                last_size = batch.commands.len();
                batch_delay.as_mut().reset(Instant::now() + BATCH_DELAY);
            }
            let may_wait = in_flight.waiting < MAX_WAITING_IN_FLIGHT;
            let batch = batch.or_else(|| may_wait.then(|| queue.waiting_batch(Instant::now())).flatten());
            let Some(batch) = batch else { break };
            in_flight.start(&batch);
            let mut batch = Box::pin(run_batch(context, batch, on_commit));
            // The batch is sent before the previous batch is published, so that Postgres works meanwhile.
            match poll_immediate(&mut batch).await {
                Some(finished) => in_flight.complete(finished, &mut queue),
                None => running.push(batch),
            }
        }
        in_flight.stored.drain(..).for_each(|stored| stored.publish(on_commit));
    }
}

/// Counts the batches in flight, and keeps the completed batches that are not published yet.
#[derive(Debug, Default)]
struct InFlight {
    batches: usize,
    /// The batches that wait for locks.
    waiting: usize,
    stored: Vec<StoredBatch>,
}

/// A batch that is no longer in flight.
struct FinishedBatch {
    rides: BTreeSet<RideId>,
    waited: bool,
    stored: Option<StoredBatch>,
    deferred: Vec<QueuedCommand>,
}

impl InFlight {
    fn count_mut(&mut self, waits: bool) -> &mut usize {
        if waits { &mut self.waiting } else { &mut self.batches }
    }

    fn start(&mut self, batch: &Batch) {
        *self.count_mut(batch.waits) += 1;
    }

    fn complete(&mut self, finished: FinishedBatch, queue: &mut Queue) {
        *self.count_mut(finished.waited) -= 1;
        queue.complete(&finished.rides, finished.deferred, Instant::now());
        self.stored.extend(finished.stored);
    }
}

/// Runs a batch. No other batch contains its rides meanwhile.
async fn run_batch(context: &BatchContext, batch: Batch, on_commit: &impl Fn(CommittedBatch)) -> FinishedBatch {
    let (stored, deferred) = batch::run(context, batch.commands, batch.waits, on_commit).await;
    FinishedBatch { rides: batch.rides, waited: batch.waits, stored, deferred }
}
