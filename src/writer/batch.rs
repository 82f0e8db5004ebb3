//! One batch: judged, committed, published and answered; and what is done when that fails.
//!
//! What is said on rides that the writer [knows](super::known) is judged by that and sent in one flight, before the others; of
//! what somebody else has written to meanwhile, or has locked, nothing is stored. All that is left is judged under the locks.
//!
//! What somebody else has locked is left out, and goes back into the queue with all that comes after it on the same ride;
//! nothing of it was done. Only a batch that is meant to wait, of one ride alone, waits for its locks, and not for long.
//!
//! What is known when an error comes decides what may be done:
//! - before anything was stored (locking, loading, judging), or when Postgres says that the transaction was
//!   aborted: nothing happened, so the batch may run again;
//! - a statement was refused: the commands run again one by one, so that the one to blame fails alone;
//! - COMMIT was sent and its answer was lost: the transaction's fate is asked for. Where that cannot be
//!   learnt, the askers are told that they do not know either (503). It is never rerun blindly;
//! - the same of a flight whose locks were never seen: it may still be on its way. The batch runs again, and what is
//!   written then is the end of the straggler there, which finds that head moved. Who writes nothing then is told that nobody
//!   knows.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::command::{Job, Needs};
use super::queue::Queued;
use super::transaction::{Attempt, Failed, Stored};
use super::{Known, Ledger, Terms};
use crate::domain::{Error, NewEvent, RideId};
use crate::store::{Store, StoreError};

/// The events of one commit.
#[derive(Debug)]
pub struct Committed {
    /// Each topic's in order.
    pub events: Vec<NewEvent>,
    /// How many commands it carried out.
    pub jobs: usize,
    /// How long that took.
    pub took: Duration,
}

/// What batches are carried out with.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) store: Arc<Store>,
    pub(super) terms: Terms,
    pub(super) known: Arc<Known>,
}

/// A batch that is stored, and of which nobody has been told.
#[derive(Debug)]
pub(super) struct Done {
    jobs: Vec<Queued>,
    committed: Committed,
}

impl Done {
    fn new(jobs: Vec<Queued>, events: Vec<NewEvent>, began: Instant) -> Self {
        let committed = Committed { events, jobs: jobs.len(), took: began.elapsed() };
        Self { jobs, committed }
    }

    /// Tells the hub, then the askers: who has an answer finds it in the hub.
    pub(super) fn tell(self, committed: &impl Fn(Committed)) {
        committed(self.committed);
        self.jobs.into_iter().for_each(|queued| queued.job.answer());
    }
}

/// How a batch comes by its locks, and what it has left out for want of them.
#[derive(Debug)]
struct Locks {
    waits: bool,
    left_out: Vec<Queued>,
}

impl Locks {
    /// Leaves out those that are locked, and what comes after them on their rides.
    fn leave_out(&mut self, jobs: &mut Vec<Queued>, is_locked: impl Fn(&Queued) -> bool) {
        let mut rides: HashSet<RideId> = self.left_out.iter().filter_map(Queued::ride).cloned().collect();
        self.left_out.extend(jobs.extract_if(.., |queued| {
            let is_out = queued.ride().is_some_and(|ride| rides.contains(ride)) || is_locked(queued);
            if is_out {
                rides.extend(queued.ride().cloned());
            }
            is_out
        }));
    }
}

/// Carries out a batch. Everyone in it was answered, or is to be [told](Done::tell), or was left out: what they need is
/// locked. One that `waits` does so for what is locked.
pub(super) async fn run(
    desk: &Desk,
    jobs: Vec<Queued>,
    waits: bool,
    committed: &impl Fn(Committed),
) -> (Option<Done>, Vec<Queued>) {
    let mut locks = Locks { waits, left_out: Vec::new() };
    let done = carry_out(desk, jobs, &mut locks, committed).await;
    (done, locks.left_out)
}

async fn carry_out(
    desk: &Desk,
    mut jobs: Vec<Queued>,
    locks: &mut Locks,
    committed: &impl Fn(Committed),
) -> Option<Done> {
    let ahead = if locks.waits { Ok(None) } else { ahead(desk, &mut jobs).await };
    let lost = match ahead {
        Ok(done) if jobs.is_empty() => return done,
        Ok(done) => {
            done.into_iter().for_each(|done| done.tell(committed));
            None
        }
        Err(error) => Some(error),
    };
    let (mut jobs, error) = match under_locks(desk, jobs, lost, locks).await {
        Ok(done) => return done,
        Err(refused) => refused,
    };
    if locks.waits && error.is_lock_timeout() {
        locks.leave_out(&mut jobs, |_| true);
        return None;
    }
    if jobs.len() == 1 || error.is_connection_lost() {
        fail(jobs, &error);
        return None;
    }
    tracing::warn!(%error, jobs = jobs.len(), "a batch was refused; its commands run one by one");
    for queued in jobs {
        let mut one = vec![queued];
        // After one of the same ride that was left out.
        locks.leave_out(&mut one, |_| false);
        // Each may wait for what the batch was refused for, a table that is locked: not one after the other for ever.
        if one.iter().any(|queued| queued.is_late(Instant::now())) {
            fail(one, &error);
            continue;
        }
        match under_locks(desk, one, None, locks).await {
            Ok(done) => done.into_iter().for_each(|done| done.tell(committed)),
            Err((job, error)) => fail(job, &error),
        }
    }
    None
}

/// Judges by what is known, and stores in one flight, those commands with which that can be done. What is done is taken out
/// of the jobs; the others are for the locks. An error is that of a connection which was lost.
///
/// A ride's commands keep their order: those after one that is for the locks are so as well.
async fn ahead(desk: &Desk, jobs: &mut Vec<Queued>) -> Result<Option<Done>, StoreError> {
    let began = Instant::now();
    let others = jobs.iter().filter(|queued| queued.needs.only_chat().is_none());
    let mut for_locks: HashSet<RideId> = others.flat_map(|queued| &queued.needs.rides).cloned().collect();
    let chats = jobs.iter().filter_map(|queued| queued.needs.only_chat()).filter(|ride| !for_locks.contains(*ride));
    let Some(mut ledger) = desk.known.take(chats, desk.terms.chat_grace) else { return Ok(None) };
    for queued in &mut *jobs {
        // What it wrote before it was left out of a batch, it did not.
        queued.wrote = false;
        let ride = queued.needs.only_chat().filter(|ride| ledger.find_ride(ride).is_some());
        let Some(ride) = ride.filter(|ride| !for_locks.contains(*ride)) else { continue };
        queued.wrote = judge(&mut *queued.job, &mut ledger);
        // What writes nothing is not checked by the flight.
        if !queued.wrote {
            for_locks.insert(ride.clone());
        }
    }
    if ledger.is_unchanged() || ledger.tells() {
        return Ok(None);
    }
    let attempt = Attempt::ahead(&desk.store).await.inspect_err(|error| lose(desk, error))?;
    let finished = attempt.finish(&desk.store, &desk.terms, &mut ledger).await;
    desk.known.proved(finished.as_ref().is_ok_and(Stored::has_any));
    let error = match finished {
        Ok(stored) => {
            let is_done =
                |queued: &mut Queued| queued.wrote && queued.needs.only_chat().is_some_and(|ride| stored.has(ride));
            let done: Vec<_> = jobs.extract_if(.., is_done).collect();
            desk.known.learn(&mut ledger, began);
            return Ok((!done.is_empty()).then(|| Done::new(done, ledger.take_events(), began)));
        }
        Err(Failed::NothingDone(error)) if !error.is_connection_lost() => {
            tracing::debug!(%error, "what is known was refused");
            return Ok(None);
        }
        Err(Failed::NothingDone(error)) => error,
        Err(Failed::NotYet(error)) => {
            jobs.iter_mut().for_each(|queued| queued.straggles |= queued.wrote);
            error
        }
        Err(Failed::Unknown(error)) => {
            unknown(jobs.extract_if(.., |queued| queued.wrote), &error);
            return Ok(None);
        }
    };
    lose(desk, &error);
    Err(error)
}

/// Judges and stores under the locks; a second time if the first, which may have been [ahead], came to nothing because its
/// connection was lost.
async fn under_locks(
    desk: &Desk,
    mut jobs: Vec<Queued>,
    mut lost: Option<StoreError>,
    locks: &mut Locks,
) -> Result<Option<Done>, (Vec<Queued>, StoreError)> {
    for _ in usize::from(lost.is_some())..2 {
        if jobs.is_empty() {
            return Ok(None);
        }
        let began = Instant::now();
        // The second run waits: what may still arrive of the first must find that its heads have moved.
        match once(desk, &mut jobs, locks, lost.is_some()).await {
            Ok(events) => {
                let unsure: Vec<_> = jobs.extract_if(.., |queued| queued.straggles && !queued.wrote).collect();
                unknown(unsure, lost.as_ref().unwrap_or(&StoreError::Timeout));
                return Ok((!jobs.is_empty()).then(|| Done::new(jobs, events, began)));
            }
            Err(Failed::Unknown(error)) => {
                unknown(jobs, &error);
                return Ok(None);
            }
            Err(Failed::NothingDone(error) | Failed::NotYet(error)) if error.is_connection_lost() => {
                lose(desk, &error);
                lost = Some(error);
            }
            Err(Failed::NothingDone(error) | Failed::NotYet(error)) => {
                unknown(jobs.extract_if(.., |queued| queued.straggles), &error);
                return Err((jobs, error));
            }
        }
    }
    Err((jobs, lost.unwrap_or(StoreError::Timeout)))
}

async fn once(
    desk: &Desk,
    jobs: &mut Vec<Queued>,
    locks: &mut Locks,
    is_second: bool,
) -> Result<Vec<NewEvent>, Failed> {
    let began = Instant::now();
    let waits = locks.waits || is_second;
    for tries in 0.. {
        let mut needs = Needs { waits, ..Needs::default() };
        jobs.iter().for_each(|queued| queued.job.needs(&mut needs));
        let begun = Attempt::begin(&desk.store, &needs, &desk.terms).await;
        let (mut attempt, mut ledger) = begun.map_err(Failed::NothingDone)?;
        desk.known.set_clock(ledger.now());
        locks.leave_out(jobs, |queued| queued.ride().is_some_and(|ride| attempt.locked.contains(ride)));
        for queued in &mut *jobs {
            let told = ledger.changes.told.len();
            queued.wrote = judge(&mut *queued.job, &mut ledger);
            queued.told = ledger.told_since(told);
        }
        let locked = match attempt.lock_told(&mut ledger, waits).await {
            Ok(locked) => locked,
            Err(error) => {
                attempt.give_up(&error).await;
                return Err(Failed::NothingDone(error));
            }
        };
        if locked.is_empty() {
            attempt.finish(&desk.store, &desk.terms, &mut ledger).await?;
            desk.known.learn(&mut ledger, began);
            return Ok(ledger.take_events());
        }
        // Whose topics are needed is known only now, with what was judged for all: it is judged again without them. If others
        // are locked by then, without all that tell somebody something, so that this ends.
        attempt.let_go().await;
        locks.leave_out(jobs, |queued| queued.told.iter().any(|topic| tries > 0 || locked.contains(topic)));
        if jobs.is_empty() {
            break;
        }
    }
    Ok(Vec::new())
}

/// Whether a command writes anything.
fn judge(job: &mut dyn Job, ledger: &mut Ledger) -> bool {
    let before = ledger.said();
    job.judge(ledger);
    ledger.said() > before
}

/// What was known may be of a database that is no more.
fn lose(desk: &Desk, error: &StoreError) {
    desk.known.forget();
    tracing::debug!(%error, "the writer lost its connection");
}

/// Says of commands that nobody knows whether they were carried out.
fn unknown(jobs: impl IntoIterator<Item = Queued>, error: &StoreError) {
    let asked = jobs.into_iter().map(|queued| queued.job.fail(Error::Unavailable)).count();
    if asked > 0 {
        tracing::error!(%error, jobs = asked, "a commit's fate is unknown");
    }
}

/// Says of commands that nothing was done.
fn fail(jobs: Vec<Queued>, error: &StoreError) {
    match Error::from(error) {
        Error::Internal => tracing::error!(%error, ?jobs, "the writer failed"),
        _ => tracing::warn!(%error, jobs = jobs.len(), "the writer cannot reach the database"),
    }
    jobs.into_iter().for_each(|queued| queued.job.fail(Error::from(error)));
}
