//! Generates schedules from seeds. They make operations overlap that can overlap.

mod scenarios;

use fastrand::Rng;

use crate::classify::MessageKind;
use crate::gate::Direction;
use crate::step::{Action, Actor, Replica, Schedule, Step};

/// Builds a schedule.
struct Generator {
    rng: Rng,
    steps: Vec<Step>,
    ops: usize,
    gates: usize,
    readers: usize,
    /// The operations that sent a message, each with its ride.
    sent: Vec<(usize, usize)>,
    /// The replica of the last operation.
    last: Replica,
    /// The driver of each ride, if all operations succeed.
    drivers: [Actor; 5],
    has_ended: [bool; 5],
    has_killed: bool,
}

/// Returns the schedule of a seed.
pub(crate) fn generate(seed: u64) -> Schedule {
    let mut generator = Generator {
        rng: Rng::with_seed(seed),
        steps: Vec::new(),
        ops: 0,
        gates: 0,
        readers: 0,
        sent: Vec::new(),
        last: Replica::A,
        drivers: [Actor::FirstDriver; 5],
        has_ended: [false; 5],
        has_killed: false,
    };
    generator.begin();
    for _ in 0..generator.rng.usize(2..5) {
        generator.add_random(0);
    }
    // A separate generator, so that the rest of a seed's schedule stays the same.
    generator.rng = Rng::with_seed(!seed);
    if generator.chance(25) {
        generator.change_window();
    }
    Schedule(generator.steps)
}

impl Generator {
    /// Inserts a change of a ride's chat window somewhere: its driver is removed, or it ends and is reopened.
    fn change_window(&mut self) {
        let index = self.rng.usize(0..=self.steps.len());
        let rest = self.steps.split_off(index);
        let (ride, at) = (self.ride(), self.replica());
        if self.chance(60) {
            self.run_operation(Action::Unassign, ride, at);
        } else {
            self.run_operation(Action::Complete, ride, at);
            self.run_operation(Action::Reopen, ride, at.other());
        }
        self.steps.extend(rest);
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.u32(0..100) < percent
    }

    fn replica(&mut self) -> Replica {
        Replica::BOTH[self.rng.usize(0..2)]
    }

    fn direction(&mut self) -> Direction {
        [Direction::Request, Direction::Response][self.rng.usize(0..2)]
    }

    /// Returns mostly the first ride, so that operations meet.
    fn ride(&mut self) -> usize {
        [1, 1, 1, 1, 1, 1, 1, 2, 2, 3][self.rng.usize(0..10)]
    }

    /// Opens readers, and sends messages so that replicas have rides in their caches.
    fn begin(&mut self) {
        for _ in 0..self.rng.usize(1..4) {
            let actor = [Actor::FirstDriver, Actor::FirstDriver, Actor::Rider, Actor::Support][self.rng.usize(0..4)];
            let at = self.replica();
            self.read(actor, at);
        }
        let ride = self.ride();
        self.last = self.replica();
        for _ in 0..self.rng.usize(0..4) {
            let at = if self.chance(60) { self.last } else { self.replica() };
            let action = self.send(ride);
            self.run_operation(action, ride, at);
        }
    }

    fn read(&mut self, actor: Actor, at: Replica) {
        self.readers += 1;
        let ride = self.sent.last().map_or(1, |(_, ride)| *ride);
        let ride = if self.chance(65) { Some(ride) } else { None };
        self.steps.push(Step::OpenStream { reader: self.readers, actor, ride, at });
    }

    /// Starts an operation, and returns its number.
    fn start(&mut self, action: Action, ride: usize, at: Replica) -> usize {
        self.ops += 1;
        let op = self.ops;
        self.last = at;
        self.steps.push(Step::Start { op, action, ride, at });
        match action {
            Action::Send { .. } => self.sent.push((op, ride)),
            Action::Assign { driver } => self.drivers[ride] = driver,
            Action::Complete | Action::Cancel => self.has_ended[ride] = true,
            _ => {}
        }
        op
    }

    fn run_operation(&mut self, action: Action, ride: usize, at: Replica) {
        let op = self.start(action, ride, at);
        self.steps.push(Step::Wait { op });
    }

    fn gate(&mut self, at: Replica, kind: MessageKind, direction: Direction, nth: usize) -> usize {
        self.gates += 1;
        self.steps.push(Step::AddGate { gate: self.gates, at, kind, direction, nth });
        self.gates
    }

    fn driver(&self, ride: usize) -> Actor {
        self.drivers[ride]
    }

    fn send(&mut self, ride: usize) -> Action {
        let actor = [Actor::Rider, self.driver(ride), Actor::Support][self.rng.usize(0..3)];
        Action::Send { actor, named: self.chance(30) }
    }

    /// Returns a random write, on a random ride or on the ride of the message that it is about.
    fn write(&mut self) -> (Action, usize) {
        let ride = self.ride();
        let about = if self.sent.is_empty() { None } else { Some(self.sent[self.rng.usize(0..self.sent.len())]) };
        // The message that was sent last is most likely still in flight.
        let about = if self.chance(70) { self.sent.last().copied() } else { about };
        match (self.rng.u32(0..100), about) {
            (0..26, Some((of, ride))) => (Action::Delete { of, by_support: self.chance(40) }, ride),
            (26..31, Some((of, ride))) => (Action::Edit { of }, ride),
            (31..36, Some((of, ride))) => (Action::Retry { of }, ride),
            (36..48, _) => {
                let actor = [Actor::Rider, self.driver(ride), Actor::Support, Actor::Support][self.rng.usize(0..4)];
                (Action::UpdateReceipt { actor, read: self.chance(50) }, ride)
            }
            (48..62, _) if !self.has_ended[ride] => (self.assign(ride), ride),
            (62..67, _) => (Action::Complete, ride),
            (67..69, _) => (Action::Cancel, ride),
            _ => (self.send(ride), ride),
        }
    }

    fn assign(&mut self, ride: usize) -> Action {
        let others = [Actor::FirstDriver, Actor::SecondDriver, Actor::SecondDriver, Actor::Support];
        let driver = others[self.rng.usize(0..4)];
        let driver = if driver == self.driver(ride) { Actor::SecondDriver } else { driver };
        Action::Assign { driver }
    }

    /// Returns a random operation.
    fn random_operation(&mut self) -> (Action, usize) {
        let ride = self.ride();
        match self.rng.u32(0..100) {
            0..12 => (Action::Locate { actor: self.driver(ride) }, ride),
            12..17 => {
                let actor = [Actor::Rider, self.driver(ride)][self.rng.usize(0..2)];
                (Action::Type { actor }, ride)
            }
            17..22 => {
                let actor = Actor::READERS[self.rng.usize(0..4)];
                (if self.chance(50) { Action::Poll { actor } } else { Action::History { actor } }, ride)
            }
            _ => self.write(),
        }
    }

    /// Adds a random operation or scenario.
    fn add_random(&mut self, depth: usize) {
        match self.rng.u32(0..100) {
            0..36 if depth < 2 => self.interrupt_operation(depth),
            36..52 if depth < 2 => self.delay_reads(depth),
            52..56 => {
                let at = self.replica();
                self.steps.push(Step::FallbackPoll { at });
            }
            56..60 => {
                let (actor, at) = (Actor::READERS[self.rng.usize(0..4)], self.replica());
                self.read(actor, at);
            }
            60..62 if self.readers > 0 => {
                let (reader, at) = (self.rng.usize(1..=self.readers), self.replica());
                self.steps.push(Step::Resume { reader, at });
            }
            62..66 if depth == 0 => self.recreate_trimmed_ride(),
            66..70 if depth == 0 && !self.has_killed => self.restart_replica(),
            70..72 if depth == 0 => self.fail_over(),
            80..82 => self.change_role(),
            82..85 if depth == 0 => self.batch_behind_gates(depth),
            72..80 => {
                let (ride, at) = (self.ride(), self.replica());
                if !self.has_ended[ride] {
                    let action = self.assign(ride);
                    self.run_operation(action, ride, at);
                    self.run_operation(Action::Locate { actor: self.driver(ride) }, ride, at);
                }
            }
            _ => {
                let ((action, ride), at) = (self.random_operation(), self.replica());
                self.run_operation(action, ride, at);
            }
        }
    }
}
