//! One batch: judged, committed, published and answered; and what is done when that fails.
//!
//! What is known when an error comes decides what may be done:
//! - before anything was stored (locking, loading, judging), or when Postgres says that the transaction was
//!   aborted: nothing happened, so the batch may run again;
//! - a statement was refused: the commands run again one by one, so that the one to blame fails alone;
//! - COMMIT was sent and its answer was lost: the transaction's fate is asked for. Where that cannot be
//!   learnt, the askers are told that they do not know either (503). It is never rerun blindly;
//! - the same of a flight whose locks were never seen: it may still be on its way. The batch runs again, and what it
//!   writes is the end of the straggler, which finds the heads moved. Where it writes nothing the askers do not know.
//!
//! A batch that was judged by what is known, in vain, is judged again under the locks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::command::{Job, Needs};
use super::queue::Batch;
use super::transaction::{Attempt, Failed};
use super::{Known, Ledger, Terms};
use crate::domain::{Error, NewEvent};
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
    jobs: Vec<Box<dyn Job>>,
    committed: Committed,
}

impl Done {
    /// Tells the hub, then the askers: who has an answer finds it in the hub.
    pub(super) fn tell(self, committed: &impl Fn(Committed)) {
        committed(self.committed);
        self.jobs.into_iter().for_each(Job::answer);
    }
}

/// Carries out a batch. Everyone in it was answered, or is to be [told](Done::tell).
pub(super) async fn run(desk: &Desk, batch: Batch, committed: &impl Fn(Committed)) -> Option<Done> {
    let (jobs, error) = match attempt(desk, batch).await {
        Ok(done) => return done,
        Err(refused) => refused,
    };
    if jobs.len() == 1 || error.is_connection_lost() {
        fail(jobs, &error);
        return None;
    }
    tracing::warn!(%error, jobs = jobs.len(), "a batch was refused; its commands run one by one");
    for job in jobs {
        match attempt(desk, Batch::of(vec![job])).await {
            Ok(done) => done.into_iter().for_each(|done| done.tell(committed)),
            Err((job, error)) => fail(job, &error),
        }
    }
    None
}

/// Tries a batch, a second time if the first came to nothing because its connection was lost.
async fn attempt(desk: &Desk, batch: Batch) -> Result<Option<Done>, (Vec<Box<dyn Job>>, StoreError)> {
    let Batch { mut jobs, needs } = batch;
    let mut lost = None;
    let mut has_straggler = false;
    for _ in 0..2 {
        let began = Instant::now();
        match once(desk, &needs, &mut jobs).await {
            Ok(events) if has_straggler && events.is_empty() => {
                unknown(jobs, &lost.unwrap_or(StoreError::Timeout));
                return Ok(None);
            }
            Ok(events) => {
                let committed = Committed { events, jobs: jobs.len(), took: began.elapsed() };
                return Ok(Some(Done { jobs, committed }));
            }
            Err(Failed::Unknown(error)) => {
                unknown(jobs, &error);
                return Ok(None);
            }
            Err(Failed::NotYet(error)) => {
                has_straggler = true;
                lost = Some(error);
            }
            Err(Failed::NothingDone(error)) if error.is_connection_lost() => lost = Some(error),
            Err(Failed::NothingDone(error)) if has_straggler => {
                unknown(jobs, &error);
                return Ok(None);
            }
            Err(Failed::NothingDone(error)) => return Err((jobs, error)),
        }
        // What was known may be of a database that is no more.
        desk.known.forget();
        tracing::debug!(error = ?lost, "the writer lost its connection");
    }
    Err((jobs, lost.unwrap_or(StoreError::Timeout)))
}

async fn once(desk: &Desk, needs: &Needs, jobs: &mut [Box<dyn Job>]) -> Result<Vec<NewEvent>, Failed> {
    let era = desk.known.era();
    let mut ledger = match ahead(desk, needs, jobs).await? {
        Some(ledger) => ledger,
        None => {
            let begun = Attempt::begin(&desk.store, needs, &desk.terms).await;
            let (attempt, mut ledger) = begun.map_err(Failed::NothingDone)?;
            desk.known.set_clock(ledger.now());
            jobs.iter_mut().for_each(|job| job.judge(&mut ledger));
            attempt.finish(&desk.store, &desk.terms, &mut ledger).await?;
            ledger
        }
    };
    desk.known.learn(&mut ledger, era);
    Ok(ledger.take_events())
}

/// Judges by what is known, and stores that in one flight: `None` where not enough is known, or it is no longer so.
async fn ahead(desk: &Desk, needs: &Needs, jobs: &mut [Box<dyn Job>]) -> Result<Option<Ledger>, Failed> {
    let Some(mut ledger) = desk.known.take(needs, desk.terms.chat_grace) else { return Ok(None) };
    for job in jobs {
        let before = ledger.events();
        job.judge(&mut ledger);
        // What writes nothing is not checked by the flight.
        if ledger.events() == before || ledger.tells() {
            return Ok(None);
        }
    }
    let attempt = Attempt::ahead(&desk.store).await.map_err(Failed::NothingDone)?;
    match attempt.finish(&desk.store, &desk.terms, &mut ledger).await {
        Err(Failed::NothingDone(error)) if !error.is_connection_lost() => {
            desk.known.proved(false);
            tracing::debug!(%error, "a batch was judged by what is no longer so");
            Ok(None)
        }
        finished => {
            desk.known.proved(finished.is_ok());
            finished.map(|()| Some(ledger))
        }
    }
}

fn unknown(jobs: Vec<Box<dyn Job>>, error: &StoreError) {
    tracing::error!(%error, jobs = jobs.len(), "a commit's fate is unknown");
    jobs.into_iter().for_each(|job| job.fail(Error::Unavailable));
}

fn fail(jobs: Vec<Box<dyn Job>>, error: &StoreError) {
    match Error::from(error) {
        Error::Internal => tracing::error!(%error, ?jobs, "the writer failed"),
        _ => tracing::warn!(%error, jobs = jobs.len(), "the writer cannot reach the database"),
    }
    jobs.into_iter().for_each(|job| job.fail(Error::from(error)));
}
