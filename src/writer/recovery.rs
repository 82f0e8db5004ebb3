//! The recovery of a batch after a failed run: its COMMITs in doubt, and how often it may run again.
//!
//! A batch is in doubt when its COMMIT was sent and the response is lost. The next run resolves it, in the transaction in which it
//! stores the remaining commands (`transaction/in_doubt.rs`). The action depends on the outcome:
//! - **Committed**: the events are published, and the callers get the responses that were decided then.
//! - **Not committed**: the commands are applied again, to what is loaded now.
//! - **May still commit**: the batch was sent without locks and has not arrived. The commands are applied again. An event that is
//!   stored on the ride now makes a late commit fail. A command that appends no event now gets 503.
//! - **Unknown**: the commands get 503.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::queue::QueuedCommand;
use super::stored_batch::{BatchContext, CommittedBatch, StoredBatch};
#[cfg(doc)]
use super::transaction::BatchTransaction;
use super::transaction::{CommitError, InDoubtBatch, Outcome, Outcomes};
use crate::domain::{Error, Topic};
use crate::store::StoreError;

/// The part of the request timeout, and the maximum time, that is spent on finding the outcome of a commit.
const TIMEOUT_PART: f64 = 0.75;
const MAX_TIMEOUT: Duration = Duration::from_secs(45);

/// How often a batch may fail, and how often its commands may be applied.
const MAX_RUNS: usize = 2;

/// The state of a batch's recovery.
#[derive(Debug)]
pub(super) struct Recovery {
    started: Instant,
    in_doubt: Vec<InDoubtBatch>,
    /// When to give up finding the outcomes.
    deadline: Instant,
    failures: usize,
    runs: usize,
    error: StoreError,
}

impl Recovery {
    /// Creates the state before the first run.
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { started: now, in_doubt: Vec::new(), deadline: now, failures: 0, runs: 0, error: StoreError::Timeout }
    }

    /// Returns the batches in doubt.
    pub(super) fn in_doubt(&self) -> &[InDoubtBatch] {
        &self.in_doubt
    }

    /// Counts a run. Returns whether the commands may be applied once more.
    pub(super) fn may_apply(&mut self) -> bool {
        self.runs += 1;
        self.runs <= MAX_RUNS
    }

    /// Records that a run has failed.
    pub(super) fn record_failure(&mut self, context: &BatchContext, error: CommitError) {
        let error = match error {
            CommitError::NotCommitted(error) => error,
            CommitError::InDoubt(batch, error) => {
                self.in_doubt.push(*batch);
                self.deadline = Instant::now() + context.store.timeout().mul_f64(TIMEOUT_PART).min(MAX_TIMEOUT);
                error
            }
        };
        if error.is_connection_lost() {
            // The cached rides may be those of a database that no longer exists. They would only cause conflicts.
            context.ride_cache.clear();
            tracing::debug!(%error, "writer connection lost");
        }
        self.failures += 1;
        self.error = error;
    }

    /// Whether another run may succeed after the failed one.
    pub(super) fn may_retry(&self) -> bool {
        let is_retryable = self.error.is_connection_lost() || self.error.is_conflict();
        match self.in_doubt.is_empty() {
            true => is_retryable && self.failures < MAX_RUNS,
            // The transaction in doubt may still hold its locks.
            false => (is_retryable || self.error.is_wait_timeout()) && Instant::now() < self.deadline,
        }
    }

    /// Responds to the commands whose outcome is known now, and publishes their events. The other commands remain in `commands`.
    ///
    /// If [any batch was committed](any_committed), the transaction that has found it must be
    /// [committed](BatchTransaction::commit_unchanged) before.
    pub(super) fn resolve(
        &mut self,
        context: &BatchContext,
        commands: &mut Vec<QueuedCommand>,
        outcomes: Vec<Outcomes>,
        on_commit: &impl Fn(CommittedBatch),
    ) {
        for (mut in_doubt, outcomes) in std::mem::take(&mut self.in_doubt).into_iter().zip(outcomes) {
            let (batch, was_locked) = (in_doubt.state.batch(), in_doubt.was_locked());
            let committed = commands
                .extract_if(.., |queued| queued.written_in == Some(batch) && outcomes.of(queued) == Outcome::Committed);
            let committed: Vec<_> = committed.collect();
            let takes_part =
                |queued: &QueuedCommand| queued.written_in == Some(batch) || queued.may_still_commit && !was_locked;
            // The result of a command that was applied again since is no longer the one that was committed.
            let unresolved = commands.extract_if(.., |queued| {
                takes_part(queued) && matches!(outcomes.of(queued), Outcome::Committed | Outcome::Unknown)
            });
            fail_in_doubt(unresolved, &self.error);
            if !was_locked {
                for queued in commands.iter_mut().filter(|queued| takes_part(queued)) {
                    queued.may_still_commit = outcomes.of(queued) == Outcome::MayStillCommit;
                }
            }
            let topics: HashSet<Topic> = outcomes.topics(Outcome::Committed).cloned().collect();
            if !topics.is_empty() {
                in_doubt.state.retain_topics(&topics);
                // The hints of the commit itself may be lost with its connection.
                context.config.notifier.notify_heads(in_doubt.state.hints().heads);
                StoredBatch::new(committed, in_doubt.state.take_events(), self.started).publish(on_commit);
            } else if outcomes.topics(Outcome::MayStillCommit).next().is_some() {
                self.in_doubt.push(in_doubt);
            }
        }
    }

    /// Fails the commands that may still commit, but have appended no event in the last run. The basis of the last run is stored.
    pub(super) fn fail_superseded(&self, commands: &mut Vec<QueuedCommand>) {
        let unresolved = commands.extract_if(.., |queued| queued.may_still_commit && queued.written_in.is_none());
        fail_in_doubt(unresolved, &self.error);
    }

    /// Fails the commands whose outcome is unknown. Returns the others, of which nothing is stored.
    pub(super) fn give_up(
        self,
        mut commands: Vec<QueuedCommand>,
    ) -> Result<Option<StoredBatch>, (Vec<QueuedCommand>, StoreError)> {
        let is_unresolved = |queued: &mut QueuedCommand| {
            let mut in_doubt = self.in_doubt.iter();
            queued.may_still_commit || in_doubt.any(|batch| queued.written_in == Some(batch.state.batch()))
        };
        fail_in_doubt(commands.extract_if(.., is_unresolved), &self.error);
        if commands.is_empty() { Ok(None) } else { Err((commands, self.error)) }
    }
}

/// Whether any of the batches in doubt is committed.
pub(super) fn any_committed(outcomes: &[Outcomes]) -> bool {
    outcomes.iter().any(|outcomes| outcomes.topics(Outcome::Committed).next().is_some())
}

/// Fails commands whose outcome is unknown.
pub(super) fn fail_in_doubt(commands: impl IntoIterator<Item = QueuedCommand>, error: &StoreError) {
    let count = commands.into_iter().map(|queued| queued.command.fail(Error::Unavailable)).count();
    if count > 0 {
        tracing::error!(%error, commands = count, "commit outcome unknown; clients got 503 for commands that may be stored");
    }
}
