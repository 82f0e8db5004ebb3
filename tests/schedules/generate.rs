//! Schedules from seeds: what may overlap is made to overlap.

use fastrand::Rng;

use crate::gate::Side;
use crate::label::Point;
use crate::step::{OLD_RIDE, Replica, Schedule, Step, What, Who};

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
    Schedule(maker.steps)
}

impl Maker {
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

    fn act_beside(&mut self, at: Replica, depth: usize) {
        for _ in 0..self.rng.usize(1..3) {
            if self.chance(75) {
                let ((what, ride), at) = (self.anything(), if self.chance(80) { at.other() } else { at });
                self.operate(what, ride, at);
            } else {
                self.act(depth + 1);
            }
        }
    }

    /// An operation is stopped on its way, and others happen meanwhile.
    fn interrupt(&mut self, depth: usize) {
        let at = if self.chance(60) { self.last } else { self.replica() };
        let ride = self.sent.last().map_or(1, |(_, ride)| *ride);
        let (what, ride) = match self.rng.u32(0..10) {
            0..5 => (self.send(ride), ride),
            5..7 => self.anything(),
            _ => self.write(),
        };
        let (point, side) = [
            (Point::Commit, Side::Request),
            (Point::Commit, Side::Request),
            (Point::Commit, Side::Response),
            (Point::Commit, Side::Response),
            (Point::Lock, Side::Request),
            (Point::Lock, Side::Response),
            (Point::Append, Side::Request),
            (Point::Snapshot, Side::Response),
            (Point::Location, Side::Request),
        ][self.rng.usize(0..9)];
        let gate = self.gate(at, point, side, 1);
        let op = self.start(what, ride, at);
        self.steps.push(Step::Reach { gate });
        if self.chance(70) {
            self.act_beside(at, depth);
        }
        let end = match (self.rng.u32(0..100), side) {
            (0..30, _) => Step::Release { gate },
            (30..70, Side::Request) => Step::Late { gate },
            _ => Step::Cut { gate },
        };
        if matches!(end, Step::Release { .. }) {
            self.steps.extend([end, Step::Wait { op }]);
            return;
        }
        // What is made up for is stopped as well: the check of what happened, or what follows from it.
        let nth = [1, 1, 2, 2, 2, 3][self.rng.usize(0..6)];
        let second = self.gate(at, Point::Lock, Side::Request, nth);
        self.steps.extend([end, Step::Reach { gate: second }]);
        let is_late = matches!(end, Step::Late { .. });
        let arrives_before = is_late && self.chance(60);
        if arrives_before {
            self.steps.push(Step::Release { gate });
        }
        if self.chance(60) {
            self.act_beside(at, depth);
        }
        self.steps.push(Step::Release { gate: second });
        self.steps.push(Step::Wait { op });
        if is_late && !arrives_before {
            self.steps.push(Step::Release { gate });
        }
    }

    /// A replica gets to know late, or never, what the other one does.
    fn slow_down(&mut self, depth: usize) {
        let at = self.replica();
        let (point, side) = [
            (Point::Page, Side::Response),
            (Point::Page, Side::Response),
            (Point::Page, Side::Request),
            (Point::Hint, Side::Response),
            (Point::Hint, Side::Response),
            (Point::Heads, Side::Response),
            (Point::Values, Side::Response),
            (Point::Notify, Side::Request),
        ][self.rng.usize(0..8)];
        let gate = self.gate(at, point, side, 1);
        for _ in 0..self.rng.usize(1..3) {
            match self.rng.u32(0..3) {
                0 => {
                    let ride = self.ride();
                    if !self.has_ended[ride] {
                        let what = self.assign(ride);
                        self.operate(what, ride, at.other());
                        self.operate(What::Locate { who: self.driver(ride) }, ride, at.other());
                    }
                }
                1 => {
                    let (what, ride) = self.anything();
                    self.operate(what, ride, at.other());
                }
                _ => self.act(depth + 1),
            }
        }
        if self.chance(30) {
            self.steps.push(Step::Look { at });
        }
        let is_lost = self.chance(if point == Point::Hint { 50 } else { 20 });
        self.steps.push(if is_lost { Step::Cut { gate } } else { Step::Release { gate } });
    }

    /// A ride that ended long ago is made anew, while retention takes it away.
    fn forget(&mut self) {
        let at = self.replica();
        let (point, side) =
            [(Point::Lock, Side::Request), (Point::Lock, Side::Response), (Point::Commit, Side::Request)]
                [self.rng.usize(0..3)];
        let gate = self.gate(at, point, side, 1);
        let driver = [Who::Old, Who::New][self.rng.usize(0..2)];
        let op = self.start(What::Assign { driver }, OLD_RIDE, at);
        self.steps.push(Step::Reach { gate });
        let retains = self.replica();
        self.steps.push(Step::Retain { at: retains });
        self.steps.extend([Step::Release { gate }, Step::Wait { op }]);
    }

    /// Support becomes a ride's driver, or is no longer: what they mark they mark as another.
    fn change_role(&mut self) {
        let ride = self.ride();
        if self.has_ended[ride] {
            return;
        }
        let driver = if self.driver(ride) == Who::Support { Who::New } else { Who::Support };
        for what in [None, Some(What::Assign { driver }), None] {
            if let Some(what) = what {
                let at = self.replica();
                self.operate(what, ride, at);
                continue;
            }
            let (sends, marks, read) = (self.replica(), self.replica(), self.chance(50));
            self.operate(What::Send { who: Who::Rider, named: false }, ride, sends);
            self.operate(What::Mark { who: Who::Support, read }, ride, marks);
        }
    }

    /// The last message of a ride is lost, while a batch of another one is in doubt; and then something else happens there.
    fn fail_over(&mut self) {
        let (at, ride) = (self.replica(), 2);
        if self.has_ended[ride] {
            return;
        }
        self.operate(What::Send { who: self.driver(ride), named: false }, ride, at);
        self.steps.push(Step::Lag { ride });
        for _ in 0..self.rng.usize(1..3) {
            self.operate(What::Send { who: self.driver(ride), named: false }, ride, at);
        }
        if self.chance(70) {
            let side = self.side();
            let gate = self.gate(at, Point::Commit, side, 1);
            let what = self.send(1);
            let op = self.start(what, 1, at);
            self.steps.extend([Step::Reach { gate }, Step::FailOver { ride }, Step::Wait { op }]);
        } else {
            self.steps.push(Step::FailOver { ride });
        }
        let before = self.driver(ride);
        let what = self.assign(ride);
        self.operate(what, ride, at.other());
        self.operate(What::Send { who: before, named: false }, ride, at);
    }

    /// A replica ends, and another begins, which takes out who was registered there.
    fn kill(&mut self) {
        self.has_killed = true;
        let at = self.replica();
        let (who, reads) = ([Who::Old, Who::Rider][self.rng.usize(0..2)], at);
        self.read(who, reads);
        let under_way = self.chance(60);
        let mut waits = None;
        if under_way {
            let (what, ride) = self.write();
            let side = self.side();
            let gate = self.gate(at, Point::Commit, side, 1);
            let op = self.start(what, ride, at);
            self.steps.push(Step::Reach { gate });
            waits = Some((op, gate));
        }
        self.steps.push(Step::Kill { at });
        if let Some((op, gate)) = waits {
            self.steps.extend([Step::Release { gate }, Step::Wait { op }]);
        }
        if self.chance(50) {
            self.act_beside(at, 1);
        }
        let breaks = self.chance(75);
        let gate = breaks.then(|| {
            let nth = self.rng.usize(1..11);
            let side = self.side();
            self.gate(at, Point::Presence, side, nth)
        });
        self.steps.push(Step::Restart { at });
        if let Some(gate) = gate {
            self.steps.push(Step::Reach { gate });
            let is_lost = self.chance(80);
            self.steps.push(if is_lost { Step::Cut { gate } } else { Step::Release { gate } });
        }
    }
}
