//! Schedules from seeds: what may overlap is made to overlap.

mod scenes;

use fastrand::Rng;

use crate::gate::Side;
use crate::label::Point;
use crate::step::{Replica, Schedule, Step, What, Who};

/// A schedule in the making.
struct Maker {
    rng: Rng,
    steps: Vec<Step>,
    ops: usize,
    gates: usize,
    readers: usize,
    /// What has been sent, and where.
    sent: Vec<(usize, usize)>,
    /// Where something was done last.
    last: Replica,
    /// Who drives each ride, if all goes well.
    drivers: [Who; 5],
    has_ended: [bool; 5],
    has_killed: bool,
}

/// The schedule of a seed.
pub(crate) fn generate(seed: u64) -> Schedule {
    let mut maker = Maker {
        rng: Rng::with_seed(seed),
        steps: Vec::new(),
        ops: 0,
        gates: 0,
        readers: 0,
        sent: Vec::new(),
        last: Replica::A,
        drivers: [Who::Old; 5],
        has_ended: [false; 5],
        has_killed: false,
    };
    maker.begin();
    for _ in 0..maker.rng.usize(2..5) {
        maker.act(0);
    }
    // Drawn apart, so that a seed means what it meant before.
    maker.rng = Rng::with_seed(!seed);
    if maker.chance(25) {
        maker.change_window();
    }
    Schedule(maker.steps)
}

impl Maker {
    /// Somewhere among the steps the driver of a ride is removed, or the ride ends and is reopened; beside what goes on there.
    fn change_window(&mut self) {
        let place = self.rng.usize(0..=self.steps.len());
        let rest = self.steps.split_off(place);
        let (ride, at) = (self.ride(), self.replica());
        if self.chance(60) {
            self.operate(What::Unassign, ride, at);
        } else {
            self.operate(What::Complete, ride, at);
            self.operate(What::Reopen, ride, at.other());
        }
        self.steps.extend(rest);
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.u32(0..100) < percent
    }

    fn replica(&mut self) -> Replica {
        Replica::BOTH[self.rng.usize(0..2)]
    }

    fn side(&mut self) -> Side {
        [Side::Request, Side::Response][self.rng.usize(0..2)]
    }

    /// Mostly the first, so that what is done meets.
    fn ride(&mut self) -> usize {
        [1, 1, 1, 1, 1, 1, 1, 2, 2, 3][self.rng.usize(0..10)]
    }

    /// Readers, and rides that replicas know.
    fn begin(&mut self) {
        for _ in 0..self.rng.usize(1..4) {
            let who = [Who::Old, Who::Old, Who::Rider, Who::Support][self.rng.usize(0..4)];
            let at = self.replica();
            self.read(who, at);
        }
        let ride = self.ride();
        self.last = self.replica();
        for _ in 0..self.rng.usize(0..4) {
            let at = if self.chance(60) { self.last } else { self.replica() };
            let what = self.send(ride);
            self.operate(what, ride, at);
        }
    }

    fn read(&mut self, who: Who, at: Replica) {
        self.readers += 1;
        let ride = self.sent.last().map_or(1, |(_, ride)| *ride);
        let ride = if self.chance(65) { Some(ride) } else { None };
        self.steps.push(Step::Read { reader: self.readers, who, ride, at });
    }

    /// Begins an operation, and says which it is.
    fn start(&mut self, what: What, ride: usize, at: Replica) -> usize {
        self.ops += 1;
        let op = self.ops;
        self.last = at;
        self.steps.push(Step::Start { op, what, ride, at });
        match what {
            What::Send { .. } => self.sent.push((op, ride)),
            What::Assign { driver } => self.drivers[ride] = driver,
            What::Complete | What::Cancel => self.has_ended[ride] = true,
            _ => {}
        }
        op
    }

    fn operate(&mut self, what: What, ride: usize, at: Replica) {
        let op = self.start(what, ride, at);
        self.steps.push(Step::Wait { op });
    }

    fn gate(&mut self, at: Replica, point: Point, side: Side, nth: usize) -> usize {
        self.gates += 1;
        self.steps.push(Step::Hold { gate: self.gates, at, point, side, nth });
        self.gates
    }

    fn driver(&self, ride: usize) -> Who {
        self.drivers[ride]
    }

    fn send(&mut self, ride: usize) -> What {
        let who = [Who::Rider, self.driver(ride), Who::Support][self.rng.usize(0..3)];
        What::Send { who, named: self.chance(30) }
    }

    /// Something that is written, on this ride or one that it is about.
    fn write(&mut self) -> (What, usize) {
        let ride = self.ride();
        let about = if self.sent.is_empty() { None } else { Some(self.sent[self.rng.usize(0..self.sent.len())]) };
        // What was sent last is what is still under way.
        let about = if self.chance(70) { self.sent.last().copied() } else { about };
        match (self.rng.u32(0..100), about) {
            (0..26, Some((of, ride))) => (What::Delete { of, by_support: self.chance(40) }, ride),
            (26..31, Some((of, ride))) => (What::Edit { of }, ride),
            (31..36, Some((of, ride))) => (What::Retry { of }, ride),
            (36..48, _) => {
                let who = [Who::Rider, self.driver(ride), Who::Support, Who::Support][self.rng.usize(0..4)];
                (What::Mark { who, read: self.chance(50) }, ride)
            }
            (48..62, _) if !self.has_ended[ride] => (self.assign(ride), ride),
            (62..67, _) => (What::Complete, ride),
            (67..69, _) => (What::Cancel, ride),
            _ => (self.send(ride), ride),
        }
    }

    fn assign(&mut self, ride: usize) -> What {
        let others = [Who::Old, Who::New, Who::New, Who::Support];
        let driver = others[self.rng.usize(0..4)];
        let driver = if driver == self.driver(ride) { Who::New } else { driver };
        What::Assign { driver }
    }

    /// Anything.
    fn anything(&mut self) -> (What, usize) {
        let ride = self.ride();
        match self.rng.u32(0..100) {
            0..12 => (What::Locate { who: self.driver(ride) }, ride),
            12..17 => {
                let who = [Who::Rider, self.driver(ride)][self.rng.usize(0..2)];
                (What::Type { who }, ride)
            }
            17..22 => {
                let who = Who::READERS[self.rng.usize(0..4)];
                (if self.chance(50) { What::Poll { who } } else { What::History { who } }, ride)
            }
            _ => self.write(),
        }
    }

    /// Something happens, alone or beside something else.
    fn act(&mut self, depth: usize) {
        match self.rng.u32(0..100) {
            0..36 if depth < 2 => self.interrupt(depth),
            36..52 if depth < 2 => self.slow_down(depth),
            52..56 => {
                let at = self.replica();
                self.steps.push(Step::Look { at });
            }
            56..60 => {
                let (who, at) = (Who::READERS[self.rng.usize(0..4)], self.replica());
                self.read(who, at);
            }
            60..62 if self.readers > 0 => {
                let (reader, at) = (self.rng.usize(1..=self.readers), self.replica());
                self.steps.push(Step::Resume { reader, at });
            }
            62..66 if depth == 0 => self.forget(),
            66..70 if depth == 0 && !self.has_killed => self.kill(),
            70..72 if depth == 0 => self.fail_over(),
            80..82 => self.change_role(),
            82..85 if depth == 0 => self.crowd(depth),
            72..80 => {
                let (ride, at) = (self.ride(), self.replica());
                if !self.has_ended[ride] {
                    let what = self.assign(ride);
                    self.operate(what, ride, at);
                    self.operate(What::Locate { who: self.driver(ride) }, ride, at);
                }
            }
            _ => {
                let ((what, ride), at) = (self.anything(), self.replica());
                self.operate(what, ride, at);
            }
        }
    }
}
