//! What a batch's runs have left to clear up: COMMITs in doubt, and how often it may be tried again.
//!
//! A batch is in doubt when its COMMIT was sent and the response is lost. The next run clears that up, in the transaction in which
//! it stores what is left (`transaction/doubt.rs`):
//! - what is committed is published, and its commands are answered with what was decided then;
//! - what is not committed is decided again, on what is loaded now;
//! - what can still be committed, because it was sent without locks and has not arrived, is decided again as well: what is written
//!   on its ride now is its end. A command that writes nothing now is answered 503;
//! - where nothing can tell, the answer is 503.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::batch::{Committed, Desk, Done};
use super::queue::Queued;
#[cfg(doc)]
use super::transaction::Attempt;
use super::transaction::{Doubt, Failed, Outcome, Outcomes};
use crate::domain::{Error, Topic};
use crate::store::StoreError;

/// What part of the time that a request may wait is spent on the outcome of a commit, and the longest such time.
const TIMEOUT_PART: f64 = 0.75;
const LONGEST_TIMEOUT: Duration = Duration::from_secs(45);

/// How often a batch may fail, and how often its commands may be decided.
const MOST_RUNS: usize = 2;

/// What is to be cleared up.
#[derive(Debug)]
pub(super) struct Recovery {
    began: Instant,
    doubts: Vec<Doubt>,
    /// When to give up on them.
    until: Instant,
    failures: usize,
    runs: usize,
    error: StoreError,
}

impl Recovery {
    /// Nothing, before the first run.
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { began: now, doubts: Vec::new(), until: now, failures: 0, runs: 0, error: StoreError::Timeout }
    }

    /// The batches in doubt.
    pub(super) fn doubts(&self) -> &[Doubt] {
        &self.doubts
    }

    /// Whether the commands may be decided once more. If so, that counts.
    pub(super) fn may_run(&mut self) -> bool {
        self.runs += 1;
        self.runs <= MOST_RUNS
    }

    /// A run has failed.
    pub(super) fn add(&mut self, desk: &Desk, failed: Failed) {
        let error = match failed {
            Failed::NothingDone(error) => error,
            Failed::InDoubt(doubt, error) => {
                self.doubts.push(*doubt);
                self.until = Instant::now() + desk.store.patience().mul_f64(TIMEOUT_PART).min(LONGEST_TIMEOUT);
                error
            }
        };
        if error.is_connection_lost() {
            // What is known may be of a database that is no more. It would not be stored, but tried in vain.
            desk.known.forget();
            tracing::debug!(%error, "the writer lost its connection");
        }
        self.failures += 1;
        self.error = error;
    }

    /// Whether another run may get further than the one that has failed.
    pub(super) fn may_go_on(&self) -> bool {
        let may_pass = self.error.is_connection_lost() || self.error.is_conflict();
        match self.doubts.is_empty() {
            true => may_pass && self.failures < MOST_RUNS,
            // Whoever is in doubt may have its locks still.
            false => (may_pass || self.error.is_wait_timeout()) && Instant::now() < self.until,
        }
    }

    /// Answers the commands of which the doubts, whose outcomes these are, say what became of them. The others are left.
    ///
    /// Where something [was found](found_any), only after the transaction that has found it is [committed](Attempt::confirm).
    pub(super) fn clear_up(
        &mut self,
        desk: &Desk,
        jobs: &mut Vec<Queued>,
        outcomes: Vec<Outcomes>,
        committed: &impl Fn(Committed),
    ) {
        for (mut doubt, outcomes) in std::mem::take(&mut self.doubts).into_iter().zip(outcomes) {
            let (batch, was_locked) = (doubt.ledger.batch(), doubt.was_locked());
            let done =
                jobs.extract_if(.., |queued| queued.wrote == Some(batch) && outcomes.of(queued) == Outcome::Stored);
            let done: Vec<_> = done.collect();
            let takes_part = |queued: &Queued| queued.wrote == Some(batch) || queued.may_still_commit && !was_locked;
            // Of those that have been decided again since, it is not known any more what was decided first.
            let unsure = jobs.extract_if(.., |queued| {
                takes_part(queued) && matches!(outcomes.of(queued), Outcome::Stored | Outcome::Unknown)
            });
            unknown(unsure, &self.error);
            if !was_locked {
                for queued in jobs.iter_mut().filter(|queued| takes_part(queued)) {
                    queued.may_still_commit = outcomes.of(queued) == Outcome::MayStillCommit;
                }
            }
            let stored: HashSet<Topic> = outcomes.topics(Outcome::Stored).cloned().collect();
            if !stored.is_empty() {
                doubt.ledger.keep_only(&stored);
                // Its own hints may be lost with its connection.
                desk.terms.notifier.tell_heads(doubt.ledger.hints().heads);
                Done::new(done, doubt.ledger.take_events(), self.began).tell(committed);
            } else if outcomes.topics(Outcome::MayStillCommit).next().is_some() {
                self.doubts.push(doubt);
            }
        }
    }

    /// Answers the commands that have written, now and in vain, what may still be committed. What the last run was decided on is
    /// stored.
    pub(super) fn answer_unsure(&self, jobs: &mut Vec<Queued>) {
        unknown(jobs.extract_if(.., |queued| queued.may_still_commit && queued.wrote.is_none()), &self.error);
    }

    /// Answers the commands of which nobody knows what became of them; to the others, nothing was done.
    pub(super) fn give_up(self, mut jobs: Vec<Queued>) -> Result<Option<Done>, (Vec<Queued>, StoreError)> {
        let is_unsure = |queued: &mut Queued| {
            let mut doubts = self.doubts.iter();
            queued.may_still_commit || doubts.any(|doubt| queued.wrote == Some(doubt.ledger.batch()))
        };
        unknown(jobs.extract_if(.., is_unsure), &self.error);
        if jobs.is_empty() { Ok(None) } else { Err((jobs, self.error)) }
    }
}

/// Whether any of the batches in doubt is found committed.
pub(super) fn found_any(outcomes: &[Outcomes]) -> bool {
    outcomes.iter().any(|outcomes| outcomes.topics(Outcome::Stored).next().is_some())
}

/// Says of commands that nobody knows whether they were carried out.
pub(super) fn unknown(jobs: impl IntoIterator<Item = Queued>, error: &StoreError) {
    let asked = jobs.into_iter().map(|queued| queued.job.fail(Error::Unavailable)).count();
    if asked > 0 {
        tracing::error!(%error, jobs = asked, "a commit's fate is unknown");
    }
}
