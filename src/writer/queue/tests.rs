//! Who leaves when.

use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::TryRecvError;

use super::*;
use crate::domain::Result;
use crate::writer::{Command, Ledger, command};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Wants a ride, or none.
struct Wish(Option<&'static str>);

impl Command for Wish {
    type Output = ();

    fn needs(&self, needs: &mut Needs) {
        if let Some(ride) = self.0 {
            needs.chat(&RideId::parse(ride).unwrap());
        }
    }

    fn judge(&self, _: &mut Ledger) -> Result<()> {
        Ok(())
    }
}

/// Answers are kept, so that it can be told whose jobs left.
struct Scene {
    queue: Queue,
    answers: Vec<(&'static str, Receiver<Result<()>>)>,
    now: Instant,
}

impl Scene {
    fn set() -> Self {
        Self { queue: Queue::new(TIMEOUT), answers: Vec::new(), now: Instant::now() }
    }

    fn wish(&mut self, name: &'static str, ride: impl Into<Option<&'static str>>) {
        let (job, answer) = command::job(Wish(ride.into()), None);
        self.answers.push((name, answer));
        self.queue.push(job);
    }

    /// What became of those that were answered, by their names.
    fn answered(&mut self) -> Vec<(&'static str, Result<()>)> {
        let mut answered = Vec::new();
        self.answers.retain_mut(|(name, answer)| match answer.try_recv() {
            Ok(answer) => {
                answered.push((*name, answer));
                false
            }
            Err(error) => error == TryRecvError::Empty,
        });
        answered
    }

    /// Carries a batch out, and says whose it was, in their order.
    fn carry_out(&mut self, batch: Option<Batch>) -> Vec<&'static str> {
        let Some(batch) = batch else { return Vec::new() };
        let mut names = Vec::new();
        for queued in batch.jobs {
            queued.job.fail(Error::Internal);
            names.extend(self.answered().into_iter().map(|(name, _)| name));
        }
        self.queue.landed(&batch.rides, Vec::new(), self.now);
        names
    }

    /// Leaves out of a batch what is about a ride, or about none, and carries out the rest.
    fn leave_out(&mut self, batch: Option<Batch>, ride: Option<&str>) -> Vec<&'static str> {
        let mut batch = batch.expect("a batch");
        let left_out = batch.jobs.extract_if(.., |queued| queued.ride().map(RideId::as_str) == ride).collect();
        self.queue.landed(&batch.rides, left_out, self.now);
        batch.rides.clear();
        self.carry_out(Some(batch))
    }

    /// What is released, and has to be at once.
    fn released(&mut self) -> Option<Batch> {
        self.queue.release(self.now);
        self.queue.batch(1)
    }

    fn next_due(&mut self) {
        self.now = self.queue.next_due(true).expect("something is locked");
    }
}

#[test]
fn whoever_wants_a_ride_that_is_taken_waits_and_others_go_past() {
    let mut scene = Scene::set();
    scene.wish("first", "a");
    let first = scene.queue.batch(1);
    scene.wish("second", "a");
    scene.wish("other", "b");
    scene.wish("nobody's", None);
    let others = scene.queue.batch(1);
    assert_eq!(scene.carry_out(others), ["other", "nobody's"]);
    assert!(scene.queue.batch(1).is_none());
    assert_eq!(scene.carry_out(first), ["first"]);
    let second = scene.queue.batch(1);
    assert_eq!(scene.carry_out(second), ["second"]);
    assert!(scene.queue.is_idle() && scene.queue.taken.is_empty() && scene.queue.parked == 0);
}

#[test]
fn a_batch_may_wait_until_it_is_large_enough() {
    let mut scene = Scene::set();
    scene.wish("one", "a");
    assert!(scene.queue.batch(2).is_none());
    scene.wish("two", "b");
    let batch = scene.queue.batch(2);
    assert_eq!(scene.carry_out(batch), ["one", "two"]);
}

#[test]
fn those_that_are_too_many_for_a_batch_keep_their_order() {
    let mut scene = Scene::set();
    for _ in 0..LARGEST_BATCH {
        scene.wish("one of many", "a");
    }
    assert_eq!(scene.queue.room(), 0);
    // As when a ride's parked commands come to be ready.
    scene.wish("one more", "a");
    scene.wish("other", "b");
    let many = scene.queue.batch(1);
    let other = scene.queue.batch(1);
    assert_eq!(scene.carry_out(other), ["other"]);
    scene.wish("the last", "a");
    assert_eq!(scene.carry_out(many).len(), LARGEST_BATCH);
    let rest = scene.queue.batch(1);
    assert_eq!(scene.carry_out(rest), ["one more", "the last"]);
}

#[test]
fn however_many_wait_for_a_ride_others_have_room_and_more_than_so_many_are_refused() {
    let mut scene = Scene::set();
    scene.wish("first", "a");
    let first = scene.queue.batch(1);
    for _ in 0..MOST_OF_RIDE {
        scene.wish("one of many", "a");
    }
    assert_eq!(scene.queue.room(), LARGEST_BATCH);
    scene.wish("too many", "a");
    assert_eq!(scene.answered(), [("too many", Err(Error::TooManyWaiting))]);
    scene.wish("other", "b");
    let other = scene.queue.batch(1);
    assert_eq!(scene.carry_out(other), ["other"]);
    scene.carry_out(first);
    let mut carried_out = 0;
    while let Some(batch) = scene.queue.batch(1) {
        carried_out += scene.carry_out(Some(batch)).len();
    }
    assert_eq!((carried_out, scene.queue.parked), (MOST_OF_RIDE, 0));
}

#[test]
fn fewer_may_wait_for_a_ride_that_is_locked() {
    let mut scene = Scene::set();
    scene.wish("first", "a");
    for _ in 0..=TRIES {
        let batch = scene.queue.waiting_batch(scene.now).or_else(|| scene.released());
        for _ in 0..MOST_OF_LOCKED + 1 {
            scene.wish("one of many", "a");
        }
        scene.leave_out(batch, Some("a"));
        scene.now += PAUSES.1;
    }
    assert!(scene.queue.parked <= MOST_OF_LOCKED, "{}", scene.queue.parked);
    let refused = scene.answered();
    assert!(!refused.is_empty() && refused.iter().all(|(_, answer)| *answer == Err(Error::TooManyWaiting)));
}

#[test]
fn what_was_left_out_is_tried_before_what_came_after_it() {
    let mut scene = Scene::set();
    scene.wish("a1", "a");
    scene.wish("b1", "b");
    scene.wish("a2", "a");
    let batch = scene.queue.batch(1);
    scene.wish("a3", "a");
    assert_eq!(scene.leave_out(batch, Some("a")), ["b1"]);
    scene.wish("a4", "a");
    let again = scene.queue.batch(1);
    assert_eq!(scene.carry_out(again), ["a1", "a2", "a3", "a4"]);
}

#[test]
fn what_is_left_out_again_and_again_waits_for_its_lock_alone_and_then_pauses() {
    let mut scene = Scene::set();
    scene.wish("a1", "a");
    for _ in 0..WAITING_TRY {
        let batch = scene.queue.batch(1);
        scene.leave_out(batch, Some("a"));
    }
    scene.wish("a2", "a");
    scene.wish("b1", "b");
    let others = scene.released();
    assert_eq!(scene.carry_out(others), ["b1"]);
    assert_eq!(scene.queue.next_due(false), None, "it is not for batches that do not wait");
    scene.next_due();
    let waiting = scene.queue.waiting_batch(scene.now).unwrap();
    assert!(waiting.waits && waiting.jobs.len() == 2 && waiting.rides.len() == 1);
    scene.wish("a3", "a");
    scene.leave_out(Some(waiting), Some("a"));
    for _ in WAITING_TRY + 1..WAITING_TRY + TRIES {
        assert!(scene.released().is_none(), "there is a pause");
        scene.next_due();
        assert!(scene.queue.waiting_batch(scene.now).is_none());
        let batch = scene.released();
        scene.leave_out(batch, Some("a"));
    }
    scene.next_due();
    let waiting = scene.queue.waiting_batch(scene.now);
    assert_eq!(scene.carry_out(waiting), ["a1", "a2", "a3"]);
    assert!(scene.queue.is_idle() && scene.queue.taken.is_empty() && scene.queue.parked == 0);
}

#[test]
fn a_ride_that_is_locked_for_long_lets_those_wait_that_are_not() {
    let mut scene = Scene::set();
    for (name, ride) in [("stuck", "a"), ("fresh", "b")] {
        scene.wish(name, ride);
        for _ in 0..WAITING_TRY {
            let batch = scene.queue.batch(1);
            scene.leave_out(batch, Some(ride));
        }
        if name == "stuck" {
            for _ in 0..TRIES {
                scene.next_due();
                let batch = scene.queue.waiting_batch(scene.now).or_else(|| scene.released());
                scene.leave_out(batch, Some(ride));
            }
        }
    }
    scene.now += PAUSES.1;
    let first = scene.queue.waiting_batch(scene.now);
    assert_eq!(scene.carry_out(first), ["fresh"]);
    let second = scene.queue.waiting_batch(scene.now);
    assert_eq!(scene.carry_out(second), ["stuck"]);
}

#[test]
fn what_has_waited_for_as_long_as_its_caller_is_given_up() {
    let mut scene = Scene::set();
    scene.wish("a1", "a");
    let batch = scene.queue.batch(1);
    scene.wish("a2", "a");
    scene.now += 2 * TIMEOUT;
    scene.leave_out(batch, Some("a"));
    assert_eq!(scene.answered(), [("a1", Err(Error::Unavailable)), ("a2", Err(Error::Unavailable))]);
    assert!(scene.queue.is_idle() && scene.queue.taken.is_empty() && scene.queue.parked == 0);
}

#[test]
fn a_command_about_no_ride_that_is_left_out_waits_alone() {
    let mut scene = Scene::set();
    scene.wish("one", None);
    scene.wish("two", None);
    for _ in 0..WAITING_TRY {
        let batch = scene.queue.batch(1);
        scene.leave_out(batch, None);
    }
    let waiting = scene.queue.waiting_batch(scene.now);
    assert_eq!(waiting.as_ref().map(|batch| batch.jobs.len()), Some(1));
    scene.carry_out(waiting);
    let waiting = scene.queue.waiting_batch(scene.now);
    scene.carry_out(waiting);
    assert!(scene.queue.is_idle());
}
