//! One batch: judged, committed, published and answered; and what is done when that fails.
//!
//! What is known when an error comes decides what may be done:
//! - before anything was stored (locking, loading, judging), or when Postgres says that the transaction was
//!   aborted: nothing happened, so the batch may run again;
//! - a statement was refused: the commands run again one by one, so that the one to blame fails alone;
//! - COMMIT was sent and its answer was lost: the transaction's fate is asked for. Where that cannot be
//!   learnt, the askers are told that they do not know either (503). It is never rerun blindly.

use std::time::{Duration, Instant};

use super::Terms;
use super::command::{Job, Needs};
use super::transaction::{Attempt, Failed};
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

/// Carries out a batch, and answers everyone in it.
pub(super) async fn run(store: &Store, terms: &Terms, jobs: Vec<Box<dyn Job>>, committed: &impl Fn(Committed)) {
    let Err((jobs, error)) = attempt(store, terms, jobs, committed).await else { return };
    if jobs.len() == 1 || error.is_connection_lost() {
        return fail(jobs, &error);
    }
    tracing::warn!(%error, jobs = jobs.len(), "a batch was refused; its commands run one by one");
    for job in jobs {
        if let Err((job, error)) = attempt(store, terms, vec![job], committed).await {
            fail(job, &error);
        }
    }
}

/// Tries a batch, a second time if the first certainly came to nothing because its connection was lost.
async fn attempt(
    store: &Store,
    terms: &Terms,
    mut jobs: Vec<Box<dyn Job>>,
    committed: &impl Fn(Committed),
) -> Result<(), (Vec<Box<dyn Job>>, StoreError)> {
    let mut lost = None;
    for _ in 0..2 {
        let began = Instant::now();
        match once(store, terms, &mut jobs).await {
            Ok(events) => {
                // The hub is told before the askers, so that who has an answer finds it in the hub.
                committed(Committed { events, jobs: jobs.len(), took: began.elapsed() });
                jobs.into_iter().for_each(Job::answer);
                return Ok(());
            }
            Err(Failed::Unknown(error)) => {
                tracing::error!(%error, jobs = jobs.len(), "a commit's fate is unknown");
                jobs.into_iter().for_each(|job| job.fail(Error::Unavailable));
                return Ok(());
            }
            Err(Failed::NothingDone(error)) if error.is_connection_lost() => {
                tracing::debug!(%error, "the writer lost its connection");
                lost = Some(error);
            }
            Err(Failed::NothingDone(error)) => return Err((jobs, error)),
        }
    }
    Err((jobs, lost.unwrap_or(StoreError::Timeout)))
}

async fn once(store: &Store, terms: &Terms, jobs: &mut [Box<dyn Job>]) -> Result<Vec<NewEvent>, Failed> {
    let mut needs = Needs::default();
    jobs.iter().for_each(|job| job.needs(&mut needs));
    let (attempt, mut ledger) = Attempt::begin(store, &needs, terms).await.map_err(Failed::NothingDone)?;
    jobs.iter_mut().for_each(|job| job.judge(&mut ledger));
    attempt.finish(store, terms, ledger).await
}

fn fail(jobs: Vec<Box<dyn Job>>, error: &StoreError) {
    match Error::from(error) {
        Error::Internal => tracing::error!(%error, ?jobs, "the writer failed"),
        _ => tracing::warn!(%error, jobs = jobs.len(), "the writer cannot reach the database"),
    }
    jobs.into_iter().for_each(|job| job.fail(Error::from(error)));
}
