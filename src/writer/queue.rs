//! Commands that wait for their batch.
//!
//! Several batches may be under way, no two of them with the same ride. So whatever is said on a ride is judged, stored and
//! told in the order in which it came, and what is [known](super::Known) of a ride is known to one batch at a time. A
//! command whose ride is taken is parked with those before it on the same ride, and all others go past: the commands that are
//! ready are those that can leave at once, and parked ones take no room from them.
//!
//! A batch leaves out what another session has locked. What it has left out comes back here, before what was parked
//! meanwhile:
//! - it is tried with the next batches, as the other replica's commit takes milliseconds;
//! - then it waits for the lock in a batch of its own, in the order in which Postgres serves those who wait, so that a ride
//!   to which another replica keeps writing is not starved;
//! - where that takes long, somebody is stuck. Then there are pauses between, in which other rides wait for their locks.
//!
//! So many commands of a ride may be parked, fewer where it is locked, and no more are taken; one that has waited for as long
//! as its caller does is given up.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::LARGEST_BATCH;
use super::command::{Job, Needs};
use crate::domain::{BatchId, Error, RideId, Topic};

/// The most commands that are parked: of a ride that was locked when it was last tried, of any other, and of all. Beyond, they
/// are refused. What waits for a batch that is under way has its turn in milliseconds, so that may be a burst.
const MOST_OF_LOCKED: usize = 4 * LARGEST_BATCH;
const MOST_OF_RIDE: usize = 16 * LARGEST_BATCH;
const MOST_PARKED: usize = 64 * LARGEST_BATCH;

/// Which try of a ride that was locked waits for the lock, in every so many.
const WAITING_TRY: u32 = 3;
const TRIES: u32 = 4;

/// The pauses between tries, when one has waited in vain: doubled from the first to the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));

/// A command on its way.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) job: Box<dyn Job>,
    pub(super) needs: Needs,
    /// The batch in which it wrote something when it was last judged, if it did.
    pub(super) wrote: Option<BatchId>,
    /// What it wrote in an earlier one may still be committed.
    pub(super) may_still_commit: bool,
    /// The topics of users whom it told something when it was last judged.
    pub(super) told: Vec<Topic>,
    /// Until when its caller waits.
    deadline: Instant,
    /// How often it was left out.
    tries: u32,
}

impl Queued {
    /// The ride that it is about, if any.
    pub(super) fn ride(&self) -> Option<&RideId> {
        self.needs.rides.first()
    }

    /// Whether nobody waits for it any more.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.deadline <= now
    }
}

/// What is carried out together.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) jobs: Vec<Queued>,
    /// Of all of them.
    pub(super) rides: BTreeSet<RideId>,
    /// Whether it waits for its locks; then it is about one ride, or it is one command.
    pub(super) waits: bool,
}

/// What was left out, and waits for its next try.
#[derive(Debug)]
struct Locked {
    /// Of one ride, or one that is about none.
    jobs: Vec<Queued>,
    tries: u32,
    due: Instant,
}

impl Locked {
    fn waits(&self) -> bool {
        self.tries % TRIES == WAITING_TRY
    }
}

/// What is parked behind a ride.
#[derive(Debug, Default)]
struct Parked {
    jobs: Vec<Queued>,
    /// Whether the ride was locked when it was last tried.
    is_locked: bool,
}

/// Those that wait, and whose rides are taken.
#[derive(Debug)]
pub(super) struct Queue {
    /// Of rides that are not taken, in the order in which they came to be ready.
    ready: Vec<Queued>,
    /// Rides that are under way, or locked; with the commands that are parked behind those.
    taken: HashMap<RideId, Parked>,
    parked: usize,
    locked: Vec<Locked>,
    timeout: Duration,
}

impl Queue {
    /// One whose commands are given up when they have waited for a lock for so long.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { ready: Vec::new(), taken: HashMap::new(), parked: 0, locked: Vec::new(), timeout }
    }

    /// How many more may be ready.
    pub(super) fn room(&self) -> usize {
        LARGEST_BATCH.saturating_sub(self.ready.len())
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether nothing waits but for batches that are under way.
    pub(super) fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.locked.is_empty()
    }

    pub(super) fn push(&mut self, job: Box<dyn Job>) {
        let mut needs = Needs::default();
        job.needs(&mut needs);
        debug_assert!(needs.rides.len() <= 1, "a command is about one ride at most");
        let deadline = Instant::now() + self.timeout;
        let queued = Queued { job, needs, wrote: None, may_still_commit: false, told: Vec::new(), deadline, tries: 0 };
        let parked = queued.ride().and_then(|ride| self.taken.get_mut(ride));
        let Some(parked) = parked else { return self.ready.push(queued) };
        let most = if parked.is_locked { MOST_OF_LOCKED } else { MOST_OF_RIDE };
        if parked.jobs.len() >= most || self.parked >= MOST_PARKED {
            return queued.job.fail(Error::TooManyWaiting);
        }
        parked.jobs.push(queued);
        self.parked += 1;
    }

    /// What can be carried out now, if it is so much: its rides are taken until the batch [lands](Self::landed).
    pub(super) fn batch(&mut self, least: usize) -> Option<Batch> {
        if self.ready.is_empty() || self.ready.len() < least {
            return None;
        }
        let jobs: Vec<_> = self.ready.drain(..self.ready.len().min(LARGEST_BATCH)).collect();
        let rides: BTreeSet<_> = jobs.iter().filter_map(Queued::ride).cloned().collect();
        self.taken.extend(rides.iter().map(|ride| (ride.clone(), Parked::default())));
        for ride in jobs.iter().filter(|queued| queued.tries > 0).filter_map(Queued::ride) {
            self.taken.entry(ride.clone()).or_default().is_locked = true;
        }
        if self.ready.is_empty() {
            return Some(Batch { jobs, rides, waits: false });
        }
        // Of those that are too many, some are of the same rides.
        for queued in std::mem::take(&mut self.ready) {
            match queued.ride().and_then(|ride| self.taken.get_mut(ride)) {
                Some(parked) => {
                    parked.jobs.push(queued);
                    self.parked += 1;
                }
                None => self.ready.push(queued),
            }
        }
        Some(Batch { jobs, rides, waits: false })
    }

    /// What was left out and is to wait for its lock now, with what is parked behind it: one of those that were tried least.
    pub(super) fn waiting_batch(&mut self, now: Instant) -> Option<Batch> {
        let due = self.locked.iter().enumerate().filter(|(_, locked)| locked.waits() && locked.due <= now);
        let (at, _) = due.min_by_key(|(_, locked)| (locked.tries, locked.due))?;
        let Locked { mut jobs, .. } = self.locked.swap_remove(at);
        let ride = jobs.first().and_then(Queued::ride).cloned();
        if let Some(parked) = ride.as_ref().and_then(|ride| self.taken.get_mut(ride)) {
            let many = parked.jobs.len().min(LARGEST_BATCH.saturating_sub(jobs.len()));
            self.parked -= many;
            jobs.extend(parked.jobs.drain(..many));
        }
        Some(Batch { jobs, rides: ride.into_iter().collect(), waits: true })
    }

    /// Makes ready what was left out and is to be tried again now.
    pub(super) fn release(&mut self, now: Instant) {
        if self.locked.is_empty() {
            return;
        }
        let due: Vec<_> = self.locked.extract_if(.., |locked| !locked.waits() && locked.due <= now).collect();
        for Locked { jobs, .. } in due {
            let ride = jobs.first().and_then(Queued::ride).cloned();
            self.make_ready(ride.as_ref(), jobs);
        }
    }

    /// When something is to be [released](Self::release), or may be a [waiting batch](Self::waiting_batch) where such a one
    /// may leave.
    pub(super) fn next_due(&self, may_wait: bool) -> Option<Instant> {
        self.locked.iter().filter(|locked| may_wait || !locked.waits()).map(|locked| locked.due).min()
    }

    /// A batch with these rides is no longer under way, and has left these commands out.
    pub(super) fn landed(&mut self, rides: &BTreeSet<RideId>, mut left_out: Vec<Queued>, now: Instant) {
        for ride in rides {
            let of_ride = left_out.extract_if(.., |queued| queued.ride() == Some(ride)).collect();
            self.put_back(Some(ride), of_ride, now);
        }
        left_out.into_iter().for_each(|queued| self.put_back(None, vec![queued], now));
    }

    /// Takes back what was left out of a ride, if anything, before what is parked.
    fn put_back(&mut self, ride: Option<&RideId>, mut jobs: Vec<Queued>, now: Instant) {
        if jobs.is_empty() {
            return self.make_ready(ride, jobs);
        }
        let mut late: Vec<_> = jobs.extract_if(.., |queued| queued.is_late(now)).collect();
        if let Some(parked) = ride.and_then(|ride| self.taken.get_mut(ride)) {
            parked.is_locked = true;
            let before = parked.jobs.len();
            late.extend(parked.jobs.extract_if(.., |queued| queued.is_late(now)));
            self.parked -= before - parked.jobs.len();
        }
        if !late.is_empty() {
            tracing::warn!(jobs = late.len(), "what had waited for too long was given up: its ride is locked");
            late.into_iter().for_each(|queued| queued.job.fail(Error::Unavailable));
        }
        let Some(tries) = jobs.iter().map(|queued| queued.tries + 1).max() else {
            return self.make_ready(ride, jobs);
        };
        for queued in &mut jobs {
            queued.tries = tries;
            // It was judged by a transaction that was rolled back, if at all.
            queued.wrote = None;
        }
        if tries < WAITING_TRY {
            self.make_ready(ride, jobs);
        } else {
            let (first, longest) = PAUSES;
            let pause =
                tries.checked_sub(WAITING_TRY + 1).map(|more| first.saturating_mul(1 << more.min(8)).min(longest));
            let due = now + pause.map_or(Duration::ZERO, |pause| pause.mul_f64(0.5 + 0.5 * fastrand::f64()));
            self.locked.push(Locked { jobs, tries, due });
        }
    }

    /// With what is parked behind their ride. Last, so that a ride has its turn after the others.
    fn make_ready(&mut self, ride: Option<&RideId>, jobs: Vec<Queued>) {
        let parked = ride.and_then(|ride| self.taken.remove(ride)).unwrap_or_default().jobs;
        self.parked -= parked.len();
        self.ready.extend(jobs);
        self.ready.extend(parked);
    }
}

#[cfg(test)]
mod tests;
