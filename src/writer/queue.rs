//! The queue of commands that wait for a batch.
//!
//! Several batches may be in flight, and no two of them contain the same ride. Therefore the commands of a ride are applied, stored
//! and published in the order of their arrival, and only one batch at a time has a ride's [cached state](super::RideCache). A
//! command whose ride is busy is parked behind the earlier commands of that ride. Commands of other rides pass it: only commands
//! that can start at once are ready, and parked commands take no capacity from the ready ones.
//!
//! A batch defers the commands whose ride another session has locked. They come back to this queue, ahead of the commands that were
//! parked meanwhile:
//! 1. They are tried in the next batches, because a commit of another replica takes milliseconds.
//! 2. Then they wait for the lock in a batch of their own. Postgres grants locks in the order of the waiters, so a ride to which
//!    another replica keeps writing is not starved.
//! 3. If that takes long, the session with the lock is stuck. After a failed wait, the ride pauses before its next attempts, and
//!    leaves the few waiting batches to other rides.
//!
//! The number of parked commands is limited per ride, with a lower limit for a locked ride. Commands beyond the limit are rejected.
//! A command fails when its caller no longer waits for it.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::MAX_BATCH_SIZE;
use super::command::{AnyCommand, ReadSet};
use crate::domain::{BatchId, Error, RideId, Topic};

/// The maximum number of parked commands of a ride that was locked at its last attempt. Commands beyond it are rejected.
const MAX_PARKED_PER_LOCKED_RIDE: usize = 4 * MAX_BATCH_SIZE;

/// The maximum number of parked commands of any other ride. Commands behind a batch in flight start within milliseconds, so a burst of
/// them is acceptable.
const MAX_PARKED_PER_RIDE: usize = 16 * MAX_BATCH_SIZE;

/// The maximum number of parked commands of all rides.
const MAX_PARKED: usize = 64 * MAX_BATCH_SIZE;

/// Of every [`ATTEMPT_CYCLE`] attempts for a locked ride, this one (counted from 0) waits for the lock; the others only try.
const WAITING_ATTEMPT: u32 = 3;

/// The number of attempts of which one waits for the lock.
const ATTEMPT_CYCLE: u32 = 4;

/// The shortest and the longest pause between attempts, after one has waited for the lock and failed. The pause doubles each time.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));

/// A command in the queue or in a batch.
#[derive(Debug)]
pub(super) struct QueuedCommand {
    pub(super) command: Box<dyn AnyCommand>,
    pub(super) read_set: ReadSet,
    /// The batch in which it appended an event when it was last applied, if it did.
    pub(super) written_in: Option<BatchId>,
    /// Whether its events of an earlier batch may still be committed.
    pub(super) may_still_commit: bool,
    /// The user topics to which it appended events when it was last applied.
    pub(super) user_topics: Vec<Topic>,
    /// When its caller gives up.
    deadline: Instant,
    /// How often it was deferred.
    attempts: u32,
}

impl QueuedCommand {
    /// Returns the ride that it is about, if any.
    pub(super) fn ride(&self) -> Option<&RideId> {
        self.read_set.rides.first()
    }

    /// Whether its caller has given up.
    pub(super) fn is_expired(&self, now: Instant) -> bool {
        self.deadline <= now
    }
}

/// The commands that run together.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) commands: Vec<QueuedCommand>,
    /// The rides of all commands.
    pub(super) rides: BTreeSet<RideId>,
    /// Whether it waits for locks. Then it is about one ride, or it is one command without a ride (which locks a user topic).
    pub(super) waits: bool,
}

/// Deferred commands that wait for their next attempt.
#[derive(Debug)]
struct Deferred {
    /// The commands of one ride, or one command without a ride.
    commands: Vec<QueuedCommand>,
    attempts: u32,
    due: Instant,
}

impl Deferred {
    fn waits(&self) -> bool {
        self.attempts % ATTEMPT_CYCLE == WAITING_ATTEMPT
    }
}

/// The commands that are parked behind a busy ride.
#[derive(Debug, Default)]
struct Parked {
    commands: Vec<QueuedCommand>,
    /// Whether the ride was locked at its last attempt.
    is_locked: bool,
}

/// The commands that are ready, parked or deferred.
#[derive(Debug)]
pub(super) struct Queue {
    /// The commands of rides that are not busy, in the order in which they became ready.
    ready: Vec<QueuedCommand>,
    /// The rides that are in flight or locked, each with the commands that are parked behind it.
    busy: HashMap<RideId, Parked>,
    /// The total number of parked commands.
    parked: usize,
    deferred: Vec<Deferred>,
    timeout: Duration,
}

impl Queue {
    /// Creates a queue whose commands fail when they are not applied within `timeout` because of a locked ride.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { ready: Vec::new(), busy: HashMap::new(), parked: 0, deferred: Vec::new(), timeout }
    }

    /// Returns how many more commands may become ready.
    pub(super) fn free_capacity(&self) -> usize {
        MAX_BATCH_SIZE.saturating_sub(self.ready.len())
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether no command is ready or deferred. Parked commands do not count.
    pub(super) fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.deferred.is_empty()
    }

    /// Adds a command: as ready, or parked behind its ride. Rejects it if too many commands are parked.
    pub(super) fn push(&mut self, command: Box<dyn AnyCommand>) {
        let mut read_set = ReadSet::default();
        command.read_set(&mut read_set);
        debug_assert!(read_set.rides.len() <= 1, "a command is about one ride at most");
        let queued = QueuedCommand {
            command,
            read_set,
            written_in: None,
            may_still_commit: false,
            user_topics: Vec::new(),
            deadline: Instant::now() + self.timeout,
            attempts: 0,
        };
        let parked = queued.ride().and_then(|ride| self.busy.get_mut(ride));
        let Some(parked) = parked else { return self.ready.push(queued) };
        let max = if parked.is_locked { MAX_PARKED_PER_LOCKED_RIDE } else { MAX_PARKED_PER_RIDE };
        if parked.commands.len() >= max || self.parked >= MAX_PARKED {
            return queued.command.fail(Error::TooManyQueuedWrites);
        }
        parked.commands.push(queued);
        self.parked += 1;
    }

    /// Removes the next batch of ready commands, if at least `min_size` are ready. Its rides are busy until the batch
    /// [completes](Self::complete).
    pub(super) fn batch(&mut self, min_size: usize) -> Option<Batch> {
        if self.ready.is_empty() || self.ready.len() < min_size {
            return None;
        }
        let commands: Vec<_> = self.ready.drain(..self.ready.len().min(MAX_BATCH_SIZE)).collect();
        let rides: BTreeSet<_> = commands.iter().filter_map(QueuedCommand::ride).cloned().collect();
        self.busy.extend(rides.iter().map(|ride| (ride.clone(), Parked::default())));
        for ride in commands.iter().filter(|queued| queued.attempts > 0).filter_map(QueuedCommand::ride) {
            self.busy.entry(ride.clone()).or_default().is_locked = true;
        }
        if self.ready.is_empty() {
            return Some(Batch { commands, rides, waits: false });
        }
        // Some of the commands beyond the batch size may be about the same rides.
        for queued in std::mem::take(&mut self.ready) {
            match queued.ride().and_then(|ride| self.busy.get_mut(ride)) {
                Some(parked) => {
                    parked.commands.push(queued);
                    self.parked += 1;
                }
                None => self.ready.push(queued),
            }
        }
        Some(Batch { commands, rides, waits: false })
    }

    /// Removes the deferred commands of a ride that are to wait for their lock now, together with the commands parked behind them.
    /// Chooses those with the fewest attempts.
    pub(super) fn waiting_batch(&mut self, now: Instant) -> Option<Batch> {
        let due = self.deferred.iter().enumerate().filter(|(_, deferred)| deferred.waits() && deferred.due <= now);
        let (index, _) = due.min_by_key(|(_, deferred)| (deferred.attempts, deferred.due))?;
        let Deferred { mut commands, .. } = self.deferred.swap_remove(index);
        let ride = commands.first().and_then(QueuedCommand::ride).cloned();
        if let Some(parked) = ride.as_ref().and_then(|ride| self.busy.get_mut(ride)) {
            let count = parked.commands.len().min(MAX_BATCH_SIZE.saturating_sub(commands.len()));
            self.parked -= count;
            commands.extend(parked.commands.drain(..count));
        }
        Some(Batch { commands, rides: ride.into_iter().collect(), waits: true })
    }

    /// Makes deferred commands ready: those whose next attempt is due and does not wait for a lock.
    pub(super) fn make_due_ready(&mut self, now: Instant) {
        if self.deferred.is_empty() {
            return;
        }
        let due: Vec<_> = self.deferred.extract_if(.., |deferred| !deferred.waits() && deferred.due <= now).collect();
        for Deferred { commands, .. } in due {
            let ride = commands.first().and_then(QueuedCommand::ride).cloned();
            self.make_ready(ride.as_ref(), commands);
        }
    }

    /// Returns when deferred commands next [become ready](Self::make_due_ready). With `may_wait`, also when a
    /// [waiting batch](Self::waiting_batch) is next due.
    pub(super) fn next_due(&self, may_wait: bool) -> Option<Instant> {
        self.deferred.iter().filter(|deferred| may_wait || !deferred.waits()).map(|deferred| deferred.due).min()
    }

    /// Records that a batch of these rides is no longer in flight, and takes back the commands that it has deferred.
    pub(super) fn complete(&mut self, rides: &BTreeSet<RideId>, mut deferred: Vec<QueuedCommand>, now: Instant) {
        for ride in rides {
            let of_ride = deferred.extract_if(.., |queued| queued.ride() == Some(ride)).collect();
            self.put_back(Some(ride), of_ride, now);
        }
        deferred.into_iter().for_each(|queued| self.put_back(None, vec![queued], now));
    }

    /// Takes back the deferred commands of a ride, if any, ahead of those that are parked.
    fn put_back(&mut self, ride: Option<&RideId>, mut commands: Vec<QueuedCommand>, now: Instant) {
        if commands.is_empty() {
            return self.make_ready(ride, commands);
        }
        let mut expired: Vec<_> = commands.extract_if(.., |queued| queued.is_expired(now)).collect();
        if let Some(parked) = ride.and_then(|ride| self.busy.get_mut(ride)) {
            parked.is_locked = true;
            let before = parked.commands.len();
            expired.extend(parked.commands.extract_if(.., |queued| queued.is_expired(now)));
            self.parked -= before - parked.commands.len();
        }
        if !expired.is_empty() {
            tracing::warn!(
                commands = expired.len(),
                "commands timed out: another database session locks their ride (see pg_locks)"
            );
            expired.into_iter().for_each(|queued| queued.command.fail(Error::Unavailable));
        }
        let Some(attempts) = commands.iter().map(|queued| queued.attempts + 1).max() else {
            return self.make_ready(ride, commands);
        };
        for queued in &mut commands {
            queued.attempts = attempts;
            // If it was applied at all, the transaction was rolled back.
            queued.written_in = None;
        }
        if attempts < WAITING_ATTEMPT {
            self.make_ready(ride, commands);
        } else {
            let (first, longest) = BACKOFF;
            let pause = attempts
                .checked_sub(WAITING_ATTEMPT + 1)
                .map(|more| first.saturating_mul(1 << more.min(8)).min(longest));
            let due = now + pause.map_or(Duration::ZERO, |pause| pause.mul_f64(0.5 + 0.5 * fastrand::f64()));
            self.deferred.push(Deferred { commands, attempts, due });
        }
    }

    /// Makes commands ready, and those that are parked behind their ride. They go to the end, so that the ride has its turn after
    /// the others.
    fn make_ready(&mut self, ride: Option<&RideId>, commands: Vec<QueuedCommand>) {
        let parked = ride.and_then(|ride| self.busy.remove(ride)).unwrap_or_default().commands;
        self.parked -= parked.len();
        self.ready.extend(commands);
        self.ready.extend(parked);
    }
}

#[cfg(test)]
mod tests;
