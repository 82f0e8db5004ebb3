//! Commands that wait for their batch.
//!
//! Several batches may be under way, no two of them with the same ride. So whatever is said on a ride is judged, stored and
//! told in the order in which it came, and what is [known](super::Known) of a ride is known to one batch at a time. A
//! command whose ride is taken waits, those after it on the same ride wait behind it, and all others go past.

use std::collections::{BTreeSet, HashSet};

use super::LARGEST_BATCH;
use super::command::{Job, Needs};
use crate::domain::{BatchId, RideId};

/// A command on its way.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) job: Box<dyn Job>,
    pub(super) needs: Needs,
    /// The batch in which it wrote something when it was last judged, if it did.
    pub(super) wrote: Option<BatchId>,
    /// What it wrote in an earlier one may still be committed.
    pub(super) may_still_commit: bool,
}

/// What is carried out together.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) jobs: Vec<Queued>,
    /// Of all of them.
    pub(super) rides: BTreeSet<RideId>,
}

/// Those that wait, and whose rides are taken.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Vec<Queued>,
    taken: HashSet<RideId>,
}

impl Queue {
    /// How many more it takes.
    pub(super) fn room(&self) -> usize {
        LARGEST_BATCH.saturating_sub(self.waiting.len())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn push(&mut self, job: Box<dyn Job>) {
        let mut needs = Needs::default();
        job.needs(&mut needs);
        self.waiting.push(Queued { job, needs, wrote: None, may_still_commit: false });
    }

    /// All that can be carried out now, if it is so much: their rides are taken until the batch [lands](Self::landed).
    pub(super) fn batch(&mut self, least: usize) -> Option<Batch> {
        if self.waiting.len() < least {
            return None;
        }
        let taken = &self.taken;
        // Rides that somebody waits for: others wait behind them.
        let mut wanted = HashSet::new();
        let free = self.waiting.extract_if(.., |Queued { needs, .. }| {
            let waits = needs.rides.iter().any(|ride| taken.contains(ride) || wanted.contains(ride));
            if waits {
                wanted.extend(needs.rides.iter().cloned());
            }
            !waits
        });
        let jobs: Vec<_> = free.collect();
        let rides: BTreeSet<_> = jobs.iter().flat_map(|queued| &queued.needs.rides).cloned().collect();
        self.taken.extend(rides.iter().cloned());
        (!jobs.is_empty()).then_some(Batch { jobs, rides })
    }

    /// A batch with these rides is no longer under way.
    pub(super) fn landed(&mut self, rides: &BTreeSet<RideId>) {
        self.taken.retain(|ride| !rides.contains(ride));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Error, Result};
    use crate::writer::{Command, Ledger, command};

    /// Wants rides, and says its name where it is judged.
    struct Wish(&'static str, &'static [&'static str]);

    impl Command for Wish {
        type Output = ();

        fn needs(&self, needs: &mut Needs) {
            self.1.iter().for_each(|ride| needs.chat(&RideId::parse(ride).unwrap()));
        }

        fn judge(&self, _: &mut Ledger) -> Result<()> {
            Err(Error::Forbidden(self.0))
        }
    }

    /// Answers are kept, so that it can be told whose jobs left.
    #[derive(Default)]
    struct Scene {
        queue: Queue,
        answers: Vec<(&'static str, tokio::sync::oneshot::Receiver<Result<()>>)>,
    }

    impl Scene {
        fn wish(&mut self, name: &'static str, rides: &'static [&'static str]) {
            let (job, answer) = command::job(Wish(name, rides), None);
            self.answers.push((name, answer));
            self.queue.push(job);
        }

        /// The rides of the next batch, and the names of its jobs in their order.
        fn batch(&mut self, least: usize) -> Option<(BTreeSet<RideId>, Vec<&'static str>)> {
            let batch = self.queue.batch(least)?;
            let answers = &mut self.answers;
            let names = batch.jobs.into_iter().map(|queued| {
                queued.job.fail(Error::Unavailable);
                let place = answers.iter_mut().position(|(_, answer)| answer.try_recv().is_ok()).unwrap();
                answers.remove(place).0
            });
            let names = names.collect();
            Some((batch.rides, names))
        }
    }

    fn names(batch: Option<(BTreeSet<RideId>, Vec<&'static str>)>) -> Vec<&'static str> {
        batch.map(|(_, names)| names).unwrap_or_default()
    }

    #[test]
    fn whoever_wants_a_ride_that_is_taken_waits_and_others_go_past() {
        let mut scene = Scene::default();
        scene.wish("first", &["a"]);
        let (rides, first) = scene.batch(1).unwrap();
        assert_eq!(first, ["first"]);
        scene.wish("second", &["a"]);
        scene.wish("other", &["b"]);
        scene.wish("nobody's", &[]);
        assert_eq!(names(scene.batch(1)), ["other", "nobody's"]);
        assert!(scene.batch(1).is_none());
        scene.queue.landed(&rides);
        assert_eq!(names(scene.batch(1)), ["second"]);
    }

    #[test]
    fn nobody_overtakes_one_who_waits_for_the_same_ride() {
        let mut scene = Scene::default();
        scene.wish("first", &["a"]);
        let (rides, _) = scene.batch(1).unwrap();
        scene.wish("both", &["a", "b"]);
        scene.wish("b", &["b"]);
        scene.wish("b again", &["b"]);
        scene.wish("c", &["c"]);
        assert_eq!(names(scene.batch(1)), ["c"]);
        scene.queue.landed(&rides);
        assert_eq!(names(scene.batch(1)), ["both", "b", "b again"]);
    }

    #[test]
    fn a_batch_may_wait_until_it_is_large_enough() {
        let mut scene = Scene::default();
        scene.wish("one", &["a"]);
        assert!(scene.batch(2).is_none());
        scene.wish("two", &["b"]);
        assert_eq!(names(scene.batch(2)), ["one", "two"]);
    }

    #[test]
    fn it_takes_no_more_than_one_batch() {
        let mut scene = Scene::default();
        while scene.queue.room() > 0 {
            scene.wish("one of many", &["a"]);
        }
        assert_eq!(names(scene.batch(LARGEST_BATCH)).len(), LARGEST_BATCH);
        assert_eq!(scene.queue.room(), LARGEST_BATCH);
    }
}
