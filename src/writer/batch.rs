//! One batch: judged, committed, published and answered; and what is done when that fails.
//!
//! What is said on rides that the writer [knows](super::known) is judged by that and sent in one flight, before the others; of
//! what somebody else has written to meanwhile, or has locked, nothing is stored. All that is left is judged under the locks.
//!
//! What somebody else has locked is left out, and goes back into the queue with all that comes after it on the same ride;
//! nothing of it was done. Two kinds of batches wait for their locks, and not for long: one that is meant to, of one ride alone; and
//! the next run of one that is in doubt, whose locks tell that it has ended.
//!
//! What is known when an error comes decides what may be done:
//! - before anything was stored (locking, loading, judging), or when Postgres says that the transaction was
//!   aborted: nothing happened, so the batch may run again;
//! - a statement was refused: the commands run again one by one, so that the one to blame fails alone;
//! - COMMIT was sent and its answer was lost: the batch is in doubt, and [cleared up](super::recovery) by the next run, never
//!   rerun blindly.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::command::{Job, Needs};
use super::queue::Queued;
use super::recovery::{Recovery, found_any, unknown};
use super::transaction::{Attempt, Failed};
use super::{Known, Ledger, Terms};
use crate::domain::{BatchId, Error, NewEvent, RideId};
use crate::store::{Store, StoreError};

/// Between two looks for what became of a commit.
const DOUBT_PAUSE: Duration = Duration::from_millis(50);

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
    pub(super) fn new(jobs: Vec<Queued>, events: Vec<NewEvent>, began: Instant) -> Self {
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
    ///
    /// Not what may still be committed: another batch would not look it up. Its run waits for locks, so here it has come to
    /// nothing but a ride that is being taken away.
    fn leave_out(&mut self, jobs: &mut Vec<Queued>, is_locked: impl Fn(&Queued) -> bool) {
        let mut rides: HashSet<RideId> = self.left_out.iter().filter_map(Queued::ride).cloned().collect();
        let mut out: Vec<_> = jobs
            .extract_if(.., |queued| {
                let is_out = queued.ride().is_some_and(|ride| rides.contains(ride)) || is_locked(queued);
                if is_out {
                    rides.extend(queued.ride().cloned());
                }
                is_out
            })
            .collect();
        unknown(out.extract_if(.., |queued| queued.may_still_commit), &StoreError::Timeout);
        self.left_out.extend(out);
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
    let mut recovery = Recovery::new();
    let ahead = if locks.waits { Ok(None) } else { ahead(desk, &mut jobs).await };
    match ahead {
        Ok(done) if jobs.is_empty() => return done,
        Ok(done) => done.into_iter().for_each(|done| done.tell(committed)),
        Err(failed) => {
            recovery.may_run();
            recovery.add(desk, failed);
        }
    }
    let (mut jobs, error) = match under_locks(desk, jobs, recovery, locks, committed).await {
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
        match under_locks(desk, one, Recovery::new(), locks, committed).await {
            Ok(done) => done.into_iter().for_each(|done| done.tell(committed)),
            Err((job, error)) => fail(job, &error),
        }
    }
    None
}

/// Judges by what is known, and stores in one flight, those commands with which that can be done. What is done is taken out
/// of the jobs; the others are for the locks. A failure is that of a connection which was lost.
///
/// A ride's commands keep their order: those after one that is for the locks are so as well.
async fn ahead(desk: &Desk, jobs: &mut Vec<Queued>) -> Result<Option<Done>, Failed> {
    let began = Instant::now();
    let others = jobs.iter().filter(|queued| queued.needs.only_chat().is_none());
    let mut for_locks: HashSet<RideId> = others.flat_map(|queued| &queued.needs.rides).cloned().collect();
    let chats = jobs.iter().filter_map(|queued| queued.needs.only_chat()).filter(|ride| !for_locks.contains(*ride));
    let Some(mut ledger) = desk.known.take(chats, desk.terms.chat_grace) else { return Ok(None) };
    for queued in &mut *jobs {
        let ride = queued.needs.only_chat().filter(|ride| ledger.find_ride(ride).is_some());
        let Some(ride) = ride.filter(|ride| !for_locks.contains(*ride)) else { continue };
        queued.wrote = judge(&mut *queued.job, &mut ledger);
        // What writes nothing is not checked by the flight.
        if queued.wrote.is_none() {
            for_locks.insert(ride.clone());
        }
    }
    if ledger.is_unchanged() || ledger.tells() {
        return Ok(None);
    }
    let attempt = Attempt::ahead(&desk.store).await.map_err(Failed::NothingDone)?;
    let finished = attempt.finish(&desk.store, &desk.terms, ledger).await;
    desk.known.proved(finished.as_ref().is_ok_and(|(stored, _)| stored.has_any()));
    let (stored, mut ledger) = match finished {
        Err(Failed::NothingDone(error)) if !error.is_connection_lost() => {
            tracing::debug!(%error, "what is known was refused");
            return Ok(None);
        }
        finished => finished?,
    };
    let is_done =
        |queued: &mut Queued| queued.wrote.is_some() && queued.needs.only_chat().is_some_and(|ride| stored.has(ride));
    let done: Vec<_> = jobs.extract_if(.., is_done).collect();
    desk.known.learn(&mut ledger, began);
    Ok((!done.is_empty()).then(|| Done::new(done, ledger.take_events(), began)))
}

/// Judges and stores under the locks; again if the run before, which may have been [ahead], came to nothing because its
/// connection was lost, or somebody else was first. What a run before has left in doubt is cleared up by the next.
async fn under_locks(
    desk: &Desk,
    mut jobs: Vec<Queued>,
    mut recovery: Recovery,
    locks: &mut Locks,
    committed: &impl Fn(Committed),
) -> Result<Option<Done>, (Vec<Queued>, StoreError)> {
    loop {
        if jobs.is_empty() {
            return Ok(None);
        }
        let began = Instant::now();
        match once(desk, &mut jobs, &mut recovery, locks, committed).await {
            Ok(Some(events)) => {
                recovery.answer_unsure(&mut jobs);
                return Ok((!jobs.is_empty()).then(|| Done::new(jobs, events, began)));
            }
            Ok(None) => return recovery.give_up(jobs),
            Err(failed) => recovery.add(desk, failed),
        }
        if !recovery.may_go_on() {
            return recovery.give_up(jobs);
        }
        if !recovery.doubts().is_empty() {
            sleep(DOUBT_PAUSE).await;
        }
    }
}

/// One run, in one transaction: what those before it have left in doubt, and all commands that are not done by that. `None`: those
/// have been judged often enough.
async fn once(
    desk: &Desk,
    jobs: &mut Vec<Queued>,
    recovery: &mut Recovery,
    locks: &mut Locks,
    committed: &impl Fn(Committed),
) -> Result<Option<Vec<NewEvent>>, Failed> {
    let began = Instant::now();
    let mut is_first = true;
    loop {
        // Whoever is in doubt may have the locks: they tell that it has ended.
        let waits = locks.waits || !recovery.doubts().is_empty();
        let mut needs = Needs { waits, ..Needs::default() };
        jobs.iter().for_each(|queued| queued.job.needs(&mut needs));
        let begun = Attempt::begin(&desk.store, &needs, &desk.terms, recovery.doubts()).await;
        let (mut attempt, mut ledger, outcomes) = begun.map_err(Failed::NothingDone)?;
        desk.known.set_clock(ledger.now());
        if found_any(&outcomes) {
            // The synchronous standby may not have it: a restart of Postgres ends the wait of a commit. What is left needs this
            // transaction no more: where one thing was found of a batch, nothing of it can still be committed.
            attempt.confirm().await.map_err(Failed::NothingDone)?;
            recovery.clear_up(desk, jobs, outcomes, committed);
            if jobs.is_empty() {
                return Ok(Some(Vec::new()));
            }
            continue;
        }
        recovery.clear_up(desk, jobs, outcomes, committed);
        locks.leave_out(jobs, |queued| queued.ride().is_some_and(|ride| attempt.locked.contains(ride)));
        if jobs.is_empty() || is_first && !recovery.may_run() {
            attempt.end().await;
            return Ok(jobs.is_empty().then(Vec::new));
        }
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
            let mut ledger = match ledger.is_unchanged() {
                false => attempt.finish(&desk.store, &desk.terms, ledger).await?.1,
                true => {
                    // What is acknowledged was committed before: that is to be as durable as what is stored.
                    let is_acknowledged = jobs.iter().any(|queued| queued.job.is_accepted());
                    match is_acknowledged {
                        true => attempt.confirm().await.map_err(Failed::NothingDone)?,
                        false => attempt.end().await,
                    }
                    ledger
                }
            };
            desk.known.learn(&mut ledger, began);
            return Ok(Some(ledger.take_events()));
        }
        // Whose topics are needed is known only now, with what was judged for all: it is judged again without them. If others
        // are locked by then, without all that tell somebody something, so that this ends.
        attempt.end().await;
        locks.leave_out(jobs, |queued| queued.told.iter().any(|topic| !is_first || locked.contains(topic)));
        is_first = false;
        if jobs.is_empty() {
            return Ok(Some(Vec::new()));
        }
    }
}

/// The batch, where a command writes anything.
fn judge(job: &mut dyn Job, ledger: &mut Ledger) -> Option<BatchId> {
    let before = ledger.said();
    job.judge(ledger);
    (ledger.said() > before).then(|| ledger.batch())
}

/// Says of commands that nothing was done.
fn fail(jobs: Vec<Queued>, error: &StoreError) {
    match Error::from(error) {
        Error::Internal => tracing::error!(%error, ?jobs, "the writer failed"),
        _ => tracing::warn!(%error, jobs = jobs.len(), "the writer cannot reach the database"),
    }
    jobs.into_iter().for_each(|queued| queued.job.fail(Error::from(error)));
}
