//! The order in which commands start.

use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::TryRecvError;

use super::*;
use crate::domain::Result;
use crate::writer::{BatchState, Command, command};

const TIMEOUT: Duration = Duration::from_secs(60);

/// A command about a ride, or about none.
struct TestCommand(Option<&'static str>);

impl Command for TestCommand {
    type Output = ();

    fn read_set(&self, read_set: &mut ReadSet) {
        if let Some(ride) = self.0 {
            read_set.add_chat(&RideId::parse(ride).unwrap());
        }
    }

    fn apply(&self, _: &mut BatchState) -> Result<()> {
        Ok(())
    }
}

/// A queue, and the response receivers of its commands. They identify the commands of a batch.
struct Fixture {
    queue: Queue,
    responses: Vec<(&'static str, Receiver<Result<()>>)>,
    now: Instant,
}

impl Fixture {
    fn new() -> Self {
        Self { queue: Queue::new(TIMEOUT), responses: Vec::new(), now: Instant::now() }
    }

    fn push(&mut self, name: &'static str, ride: impl Into<Option<&'static str>>) {
        let (command, response) = command::pending(TestCommand(ride.into()), None);
        self.responses.push((name, response));
        self.queue.push(command);
    }

    /// Returns the responses since the last call, with the names of their commands.
    fn responded(&mut self) -> Vec<(&'static str, Result<()>)> {
        let mut responded = Vec::new();
        self.responses.retain_mut(|(name, response)| match response.try_recv() {
            Ok(response) => {
                responded.push((*name, response));
                false
            }
            Err(error) => error == TryRecvError::Empty,
        });
        responded
    }

    /// Completes a batch, and returns the names of its commands, in their order.
    fn complete(&mut self, batch: Option<Batch>) -> Vec<&'static str> {
        let Some(batch) = batch else { return Vec::new() };
        let mut names = Vec::new();
        for queued in batch.commands {
            queued.command.fail(Error::Internal);
            names.extend(self.responded().into_iter().map(|(name, _)| name));
        }
        self.queue.complete(&batch.rides, Vec::new(), self.now);
        names
    }

    /// Defers the commands of a batch that are about `ride`, and completes the rest.
    fn defer(&mut self, batch: Option<Batch>, ride: Option<&str>) -> Vec<&'static str> {
        let mut batch = batch.expect("a batch");
        let deferred = batch.commands.extract_if(.., |queued| queued.ride().map(RideId::as_str) == ride).collect();
        self.queue.complete(&batch.rides, deferred, self.now);
        batch.rides.clear();
        self.complete(Some(batch))
    }

    /// Makes the deferred commands ready that are due, and returns the next batch.
    fn released(&mut self) -> Option<Batch> {
        self.queue.make_due_ready(self.now);
        self.queue.batch(1)
    }

    fn advance_to_next_due(&mut self) {
        self.now = self.queue.next_due(true).expect("something is deferred");
    }
}

#[test]
fn a_command_of_a_busy_ride_is_parked_and_others_pass_it() {
    let mut fixture = Fixture::new();
    fixture.push("first", "a");
    let first = fixture.queue.batch(1);
    fixture.push("second", "a");
    fixture.push("other", "b");
    fixture.push("rideless", None);
    let others = fixture.queue.batch(1);
    assert_eq!(fixture.complete(others), ["other", "rideless"]);
    assert!(fixture.queue.batch(1).is_none());
    assert_eq!(fixture.complete(first), ["first"]);
    let second = fixture.queue.batch(1);
    assert_eq!(fixture.complete(second), ["second"]);
    assert!(fixture.queue.is_idle() && fixture.queue.busy.is_empty() && fixture.queue.parked == 0);
}

#[test]
fn a_batch_waits_for_its_minimum_size() {
    let mut fixture = Fixture::new();
    fixture.push("one", "a");
    assert!(fixture.queue.batch(2).is_none());
    fixture.push("two", "b");
    let batch = fixture.queue.batch(2);
    assert_eq!(fixture.complete(batch), ["one", "two"]);
}

#[test]
fn commands_beyond_the_batch_size_keep_their_order() {
    let mut fixture = Fixture::new();
    for _ in 0..MAX_BATCH_SIZE {
        fixture.push("one of many", "a");
    }
    assert_eq!(fixture.queue.free_capacity(), 0);
    // This is also the case when a ride's parked commands become ready.
    fixture.push("one more", "a");
    fixture.push("other", "b");
    let many = fixture.queue.batch(1);
    let other = fixture.queue.batch(1);
    assert_eq!(fixture.complete(other), ["other"]);
    fixture.push("the last", "a");
    assert_eq!(fixture.complete(many).len(), MAX_BATCH_SIZE);
    let rest = fixture.queue.batch(1);
    assert_eq!(fixture.complete(rest), ["one more", "the last"]);
}

#[test]
fn parked_commands_take_no_room_from_other_rides_and_are_limited() {
    let mut fixture = Fixture::new();
    fixture.push("first", "a");
    let first = fixture.queue.batch(1);
    for _ in 0..MAX_PARKED_PER_RIDE {
        fixture.push("one of many", "a");
    }
    assert_eq!(fixture.queue.free_capacity(), MAX_BATCH_SIZE);
    fixture.push("too many", "a");
    assert_eq!(fixture.responded(), [("too many", Err(Error::TooManyQueuedWrites))]);
    fixture.push("other", "b");
    let other = fixture.queue.batch(1);
    assert_eq!(fixture.complete(other), ["other"]);
    fixture.complete(first);
    let mut completed = 0;
    while let Some(batch) = fixture.queue.batch(1) {
        completed += fixture.complete(Some(batch)).len();
    }
    assert_eq!((completed, fixture.queue.parked), (MAX_PARKED_PER_RIDE, 0));
}

#[test]
fn fewer_commands_may_be_parked_behind_a_locked_ride() {
    let mut fixture = Fixture::new();
    fixture.push("first", "a");
    for _ in 0..=ATTEMPT_CYCLE {
        let batch = fixture.queue.waiting_batch(fixture.now).or_else(|| fixture.released());
        for _ in 0..MAX_PARKED_PER_LOCKED_RIDE + 1 {
            fixture.push("one of many", "a");
        }
        fixture.defer(batch, Some("a"));
        fixture.now += BACKOFF.1;
    }
    assert!(fixture.queue.parked <= MAX_PARKED_PER_LOCKED_RIDE, "{}", fixture.queue.parked);
    let rejected = fixture.responded();
    assert!(!rejected.is_empty() && rejected.iter().all(|(_, response)| *response == Err(Error::TooManyQueuedWrites)));
}

#[test]
fn deferred_commands_start_before_later_ones_of_their_ride() {
    let mut fixture = Fixture::new();
    fixture.push("a1", "a");
    fixture.push("b1", "b");
    fixture.push("a2", "a");
    let batch = fixture.queue.batch(1);
    fixture.push("a3", "a");
    assert_eq!(fixture.defer(batch, Some("a")), ["b1"]);
    fixture.push("a4", "a");
    let again = fixture.queue.batch(1);
    assert_eq!(fixture.complete(again), ["a1", "a2", "a3", "a4"]);
}

#[test]
fn repeatedly_deferred_commands_wait_for_their_lock_alone_and_then_pause() {
    let mut fixture = Fixture::new();
    fixture.push("a1", "a");
    for _ in 0..WAITING_ATTEMPT {
        let batch = fixture.queue.batch(1);
        fixture.defer(batch, Some("a"));
    }
    fixture.push("a2", "a");
    fixture.push("b1", "b");
    let others = fixture.released();
    assert_eq!(fixture.complete(others), ["b1"]);
    assert_eq!(fixture.queue.next_due(false), None, "it is due only for a batch that waits for locks");
    fixture.advance_to_next_due();
    let waiting = fixture.queue.waiting_batch(fixture.now).unwrap();
    assert!(waiting.waits && waiting.commands.len() == 2 && waiting.rides.len() == 1);
    fixture.push("a3", "a");
    fixture.defer(Some(waiting), Some("a"));
    for _ in WAITING_ATTEMPT + 1..WAITING_ATTEMPT + ATTEMPT_CYCLE {
        assert!(fixture.released().is_none(), "there is a pause");
        fixture.advance_to_next_due();
        assert!(fixture.queue.waiting_batch(fixture.now).is_none());
        let batch = fixture.released();
        fixture.defer(batch, Some("a"));
    }
    fixture.advance_to_next_due();
    let waiting = fixture.queue.waiting_batch(fixture.now);
    assert_eq!(fixture.complete(waiting), ["a1", "a2", "a3"]);
    assert!(fixture.queue.is_idle() && fixture.queue.busy.is_empty() && fixture.queue.parked == 0);
}

#[test]
fn rides_with_fewer_attempts_wait_for_their_lock_first() {
    let mut fixture = Fixture::new();
    for (name, ride) in [("stuck", "a"), ("fresh", "b")] {
        fixture.push(name, ride);
        for _ in 0..WAITING_ATTEMPT {
            let batch = fixture.queue.batch(1);
            fixture.defer(batch, Some(ride));
        }
        if name == "stuck" {
            for _ in 0..ATTEMPT_CYCLE {
                fixture.advance_to_next_due();
                let batch = fixture.queue.waiting_batch(fixture.now).or_else(|| fixture.released());
                fixture.defer(batch, Some(ride));
            }
        }
    }
    fixture.now += BACKOFF.1;
    let first = fixture.queue.waiting_batch(fixture.now);
    assert_eq!(fixture.complete(first), ["fresh"]);
    let second = fixture.queue.waiting_batch(fixture.now);
    assert_eq!(fixture.complete(second), ["stuck"]);
}

#[test]
fn expired_commands_are_given_up() {
    let mut fixture = Fixture::new();
    fixture.push("a1", "a");
    let batch = fixture.queue.batch(1);
    fixture.push("a2", "a");
    fixture.now += 2 * TIMEOUT;
    fixture.defer(batch, Some("a"));
    assert_eq!(fixture.responded(), [("a1", Err(Error::Unavailable)), ("a2", Err(Error::Unavailable))]);
    assert!(fixture.queue.is_idle() && fixture.queue.busy.is_empty() && fixture.queue.parked == 0);
}

#[test]
fn deferred_commands_without_a_ride_wait_alone() {
    let mut fixture = Fixture::new();
    fixture.push("one", None);
    fixture.push("two", None);
    for _ in 0..WAITING_ATTEMPT {
        let batch = fixture.queue.batch(1);
        fixture.defer(batch, None);
    }
    let waiting = fixture.queue.waiting_batch(fixture.now);
    assert_eq!(waiting.as_ref().map(|batch| batch.commands.len()), Some(1));
    fixture.complete(waiting);
    let waiting = fixture.queue.waiting_batch(fixture.now);
    fixture.complete(waiting);
    assert!(fixture.queue.is_idle());
}
