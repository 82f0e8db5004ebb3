//! One batch: applies its commands, commits, publishes and responds; and what happens when one of these fails.
//!
//! A batch first takes the optimistic path, for messages to rides in the [cache](super::ride_cache). It applies their commands to
//! the cached state and stores the result in one round trip. Nothing is stored of a ride to which another session has written
//! meanwhile, or which another session has locked. Everything else takes the locking path.
//!
//! A batch defers the commands whose ride another session has locked, and all later commands of the same ride. They return to the
//! queue, and nothing of them is stored. Two kinds of batches wait for locks instead, for a short time:
//! - a batch of one ride alone that is meant to wait;
//! - the next run of a batch in doubt, because its locks prove that the transaction in doubt has ended.
//!
//! The point at which an error occurs decides what may be done:
//!
//! | error | action |
//! |---|---|
//! | Before anything is stored, or Postgres aborted the transaction | Nothing is committed. The batch may run again |
//! | A statement fails | The commands run again one by one, so that only the faulty command fails |
//! | The response to COMMIT is lost | The batch is in doubt. The next run [resolves](super::recovery) it. It is never rerun blindly |

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::BatchState;
use super::command::{AnyCommand, ReadSet};
use super::queue::QueuedCommand;
use super::recovery::{Recovery, any_committed, fail_in_doubt};
use super::stored_batch::{BatchContext, CommittedBatch, StoredBatch};
use super::stored_events::StoredEvents;
use super::transaction::{BatchTransaction, CommitError};
use crate::domain::{BatchId, Error, RideId};
use crate::store::StoreError;

/// The pause between two attempts to find the outcome of a commit in doubt.
const IN_DOUBT_PAUSE: Duration = Duration::from_millis(50);

/// How a batch takes its locks, and the commands that it has deferred because of locks.
#[derive(Debug)]
struct Locks {
    waits: bool,
    deferred: Vec<QueuedCommand>,
}

impl Locks {
    /// Defers the commands for which `is_locked` is true, and all later commands of their rides.
    ///
    /// A command that may still commit cannot be deferred, because another batch would not look up its outcome. Its run waits for
    /// locks. It can get here only if its ride is being deleted, and then it fails as in doubt.
    fn defer(&mut self, commands: &mut Vec<QueuedCommand>, is_locked: impl Fn(&QueuedCommand) -> bool) {
        let mut rides: HashSet<RideId> = self.deferred.iter().filter_map(QueuedCommand::ride).cloned().collect();
        let mut deferred: Vec<_> = commands
            .extract_if(.., |queued| {
                let is_deferred = queued.ride().is_some_and(|ride| rides.contains(ride)) || is_locked(queued);
                if is_deferred {
                    rides.extend(queued.ride().cloned());
                }
                is_deferred
            })
            .collect();
        fail_in_doubt(deferred.extract_if(.., |queued| queued.may_still_commit), &StoreError::Timeout);
        self.deferred.extend(deferred);
    }
}

/// Runs a batch. Each command has a response, or is in the returned batch, which is to be [published](StoredBatch::publish), or is
/// among the returned deferred commands. With `waits`, the batch waits for locks.
pub(super) async fn run(
    context: &BatchContext,
    commands: Vec<QueuedCommand>,
    waits: bool,
    on_commit: &impl Fn(CommittedBatch),
) -> (Option<StoredBatch>, Vec<QueuedCommand>) {
    let mut locks = Locks { waits, deferred: Vec::new() };
    let stored = run_all(context, commands, &mut locks, on_commit).await;
    (stored, locks.deferred)
}

async fn run_all(
    context: &BatchContext,
    mut commands: Vec<QueuedCommand>,
    locks: &mut Locks,
    on_commit: &impl Fn(CommittedBatch),
) -> Option<StoredBatch> {
    let mut recovery = Recovery::new();
    let optimistic = if locks.waits { Ok(None) } else { try_optimistic(context, &mut commands).await };
    match optimistic {
        Ok(stored) if commands.is_empty() => return stored,
        Ok(stored) => stored.into_iter().for_each(|stored| stored.publish(on_commit)),
        Err(error) => {
            recovery.may_apply();
            recovery.record_failure(context, error);
        }
    }
    let (mut commands, error) = match run_locking(context, commands, recovery, locks, on_commit).await {
        Ok(stored) => return stored,
        Err(failed) => failed,
    };
    if locks.waits && error.is_lock_timeout() {
        locks.defer(&mut commands, |_| true);
        return None;
    }
    if commands.len() == 1 || error.is_connection_lost() {
        fail(commands, &error);
        return None;
    }
    tracing::warn!(%error, commands = commands.len(), "batch failed; its commands run one by one");
    for queued in commands {
        let mut single = vec![queued];
        // An earlier command of the same ride may have been deferred.
        locks.defer(&mut single, |_| false);
        // Each command may wait for the same cause as the batch, such as a locked table. The sum of these waits must be bounded.
        if single.iter().any(|queued| queued.is_expired(Instant::now())) {
            fail(single, &error);
            continue;
        }
        match run_locking(context, single, Recovery::new(), locks, on_commit).await {
            Ok(stored) => stored.into_iter().for_each(|stored| stored.publish(on_commit)),
            Err((commands, error)) => fail(commands, &error),
        }
    }
    None
}

/// The optimistic path: applies commands to the cached state of their rides, and stores the result in one round trip.
///
/// Commands that are stored are removed from `commands`. The others take the locking path. An error means that the connection was
/// lost.
///
/// The commands of a ride keep their order: all that follow a command for the locking path take that path too.
async fn try_optimistic(
    context: &BatchContext,
    commands: &mut Vec<QueuedCommand>,
) -> Result<Option<StoredBatch>, CommitError> {
    let started = Instant::now();
    let others = commands.iter().filter(|queued| queued.read_set.only_chat_ride().is_none());
    let mut for_locking: HashSet<RideId> = others.flat_map(|queued| &queued.read_set.rides).cloned().collect();
    let chats = commands.iter().filter_map(|queued| queued.read_set.only_chat_ride());
    let chats = chats.filter(|ride| !for_locking.contains(*ride));
    let Some(mut state) = context.ride_cache.check_out(chats, context.config.rules) else { return Ok(None) };
    for queued in &mut *commands {
        let ride = queued.read_set.only_chat_ride().filter(|ride| state.find_ride(ride).is_some());
        let Some(ride) = ride.filter(|ride| !for_locking.contains(*ride)) else { continue };
        queued.written_in = apply(&mut *queued.command, &mut state);
        // Without an event there is no compare-and-set that would confirm the cached state.
        if queued.written_in.is_none() {
            for_locking.insert(ride.clone());
        }
    }
    if state.is_unchanged() || state.has_user_events() {
        return Ok(None);
    }
    let transaction = BatchTransaction::optimistic(&context.store).await.map_err(CommitError::NotCommitted)?;
    let committed = transaction.commit(&context.store, &context.config, state).await;
    context.ride_cache.record_outcome(committed.as_ref().is_ok_and(|(stored, _)| stored.has_any()));
    let (stored, mut state) = match committed {
        Err(CommitError::NotCommitted(error)) if !error.is_connection_lost() => {
            tracing::debug!(%error, "optimistic batch failed");
            return Ok(None);
        }
        committed => committed?,
    };
    let is_stored = |queued: &mut QueuedCommand| {
        queued.written_in.is_some() && queued.read_set.only_chat_ride().is_some_and(|ride| stored.contains(ride))
    };
    let done: Vec<_> = commands.extract_if(.., is_stored).collect();
    context.ride_cache.update(&mut state, started);
    if done.is_empty() {
        context.announce(state.relayed);
        return Ok(None);
    }
    Ok(Some(StoredBatch::new(done, state.take_events(), started)))
}

/// The locking path: locks and loads, applies the commands, and stores the result.
///
/// It runs again if the previous run, which may have been [optimistic](try_optimistic), failed because its connection was lost or
/// because of a conflict. Each run resolves what the previous run has left in doubt.
async fn run_locking(
    context: &BatchContext,
    mut commands: Vec<QueuedCommand>,
    mut recovery: Recovery,
    locks: &mut Locks,
    on_commit: &impl Fn(CommittedBatch),
) -> Result<Option<StoredBatch>, (Vec<QueuedCommand>, StoreError)> {
    loop {
        if commands.is_empty() {
            return Ok(None);
        }
        let started = Instant::now();
        match run_once(context, &mut commands, &mut recovery, locks, on_commit).await {
            Ok(Some(events)) => {
                recovery.fail_superseded(&mut commands);
                if commands.is_empty() {
                    context.announce(events.relayed);
                    return Ok(None);
                }
                return Ok(Some(StoredBatch::new(commands, events, started)));
            }
            Ok(None) => return recovery.give_up(commands),
            Err(error) => recovery.record_failure(context, error),
        }
        if !recovery.may_retry() {
            return recovery.give_up(commands);
        }
        if !recovery.in_doubt().is_empty() {
            sleep(IN_DOUBT_PAUSE).await;
        }
    }
}

/// Runs the locking path once: resolves the batches in doubt, then runs the remaining commands in the same transaction.
///
/// Returns the events that were stored, or `None` if the commands have been applied too often.
async fn run_once(
    context: &BatchContext,
    commands: &mut Vec<QueuedCommand>,
    recovery: &mut Recovery,
    locks: &mut Locks,
    on_commit: &impl Fn(CommittedBatch),
) -> Result<Option<StoredEvents>, CommitError> {
    let started = Instant::now();
    let mut is_first = true;
    loop {
        // A transaction in doubt may still hold the locks. Once this transaction has them, the other has ended.
        let waits = locks.waits || !recovery.in_doubt().is_empty();
        let mut read_set = ReadSet { waits, ..ReadSet::default() };
        commands.iter().for_each(|queued| queued.command.read_set(&mut read_set));
        let begun = BatchTransaction::begin(&context.store, &read_set, &context.config, recovery.in_doubt()).await;
        let (mut transaction, mut state, outcomes) = begun.map_err(CommitError::NotCommitted)?;
        context.ride_cache.set_clock(state.now());
        if any_committed(&outcomes) {
            // The synchronous standby may not have that commit: a restart of Postgres ends the wait of a commit for it. The
            // remaining commands do not need this transaction: if one event of a batch was found, the rest can no longer commit.
            transaction.commit_unchanged().await.map_err(CommitError::NotCommitted)?;
            recovery.resolve(context, commands, outcomes, on_commit);
            if commands.is_empty() {
                return Ok(Some(StoredEvents::default()));
            }
            continue;
        }
        recovery.resolve(context, commands, outcomes, on_commit);
        locks.defer(commands, |queued| queued.ride().is_some_and(|ride| transaction.locked_rides.contains(ride)));
        if commands.is_empty() || is_first && !recovery.may_apply() {
            transaction.rollback().await;
            return Ok(commands.is_empty().then(StoredEvents::default));
        }
        for queued in &mut *commands {
            let user_events = state.changes.user_events.len();
            queued.written_in = apply(&mut *queued.command, &mut state);
            queued.user_topics = state.user_topics_since(user_events);
        }
        let locked = match transaction.lock_user_topics(&mut state, waits).await {
            Ok(locked) => locked,
            Err(error) => {
                transaction.abort(&error).await;
                return Err(CommitError::NotCommitted(error));
            }
        };
        if locked.is_empty() {
            let mut state = match state.is_unchanged() {
                false => transaction.commit(&context.store, &context.config, state).await?.1,
                true => {
                    // An `Ok` without an event acknowledges an earlier commit, which must be as durable as a commit of this batch.
                    let is_acknowledged = commands.iter().any(|queued| queued.command.is_accepted());
                    match is_acknowledged {
                        true => transaction.commit_unchanged().await.map_err(CommitError::NotCommitted)?,
                        false => transaction.rollback().await,
                    }
                    state
                }
            };
            context.ride_cache.update(&mut state, started);
            return Ok(Some(state.take_events()));
        }
        // Only after the commands are applied are the required user topics known. The batch is applied again without the commands
        // that need a locked topic. If other topics are locked by then, all commands with user events are deferred. So this ends.
        transaction.rollback().await;
        locks.defer(commands, |queued| queued.user_topics.iter().any(|topic| !is_first || locked.contains(topic)));
        is_first = false;
        if commands.is_empty() {
            return Ok(Some(StoredEvents::default()));
        }
    }
}

/// Applies a command. Returns the batch if the command has appended an event.
fn apply(command: &mut dyn AnyCommand, state: &mut BatchState) -> Option<BatchId> {
    let before = state.event_count();
    command.apply(state);
    (state.event_count() > before).then(|| state.batch())
}

/// Fails commands of which nothing is stored.
fn fail(commands: Vec<QueuedCommand>, error: &StoreError) {
    match Error::from(error) {
        Error::Internal => tracing::error!(%error, ?commands, "write failed with an internal error; clients got 500"),
        _ => {
            tracing::warn!(%error, commands = commands.len(), "write failed, because the database is unavailable; clients got 503");
        }
    }
    commands.into_iter().for_each(|queued| queued.command.fail(Error::from(error)));
}
