//! What is made to overlap.

use super::Maker;
use crate::gate::Side;
use crate::label::Point;
use crate::step::{OLD_RIDE, Replica, Step, What, Who};

impl Maker {
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
    pub(super) fn interrupt(&mut self, depth: usize) {
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
        self.end(at, (gate, side), &[op], depth);
    }

    /// Ends what a gate holds: others happen before, and it goes on, is lost, or arrives late.
    fn end(&mut self, at: Replica, (gate, side): (usize, Side), ops: &[usize], depth: usize) {
        let waits: Vec<_> = ops.iter().map(|op| Step::Wait { op: *op }).collect();
        if self.chance(70) {
            self.act_beside(at, depth);
        }
        let end = match (self.rng.u32(0..100), side) {
            (0..30, _) => Step::Release { gate },
            (30..70, Side::Request) => Step::Late { gate },
            _ => Step::Cut { gate },
        };
        if matches!(end, Step::Release { .. }) {
            self.steps.push(end);
            self.steps.extend(waits);
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
        self.steps.extend(waits);
        if is_late && !arrives_before {
            self.steps.push(Step::Release { gate });
        }
    }

    /// Two batches are under way, so that what comes meanwhile, to several rides, is one batch; which is stopped as well.
    pub(super) fn crowd(&mut self, depth: usize) {
        let at = self.replica();
        let mut ops = Vec::new();
        let mut gates = Vec::new();
        for ride in [1, 2] {
            let gate = self.gate(at, Point::Commit, Side::Request, 1);
            let what = self.send(ride);
            ops.push(self.start(what, ride, at));
            self.steps.push(Step::Reach { gate });
            gates.push(gate);
        }
        for _ in 0..self.rng.usize(2..5) {
            let ride = self.rng.usize(1..4);
            let (what, ride) = if self.chance(60) { (self.send(ride), ride) } else { self.write() };
            ops.push(self.start(what, ride, at));
        }
        if self.chance(40) {
            self.act_beside(at, depth);
        }
        let side = self.side();
        let gate = self.gate(at, Point::Commit, side, 1);
        self.steps.extend(gates.iter().map(|gate| Step::Release { gate: *gate }));
        self.steps.push(Step::Reach { gate });
        self.end(at, (gate, side), &ops, depth);
    }

    /// A replica gets to know late, or never, what the other one does.
    pub(super) fn slow_down(&mut self, depth: usize) {
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
    pub(super) fn forget(&mut self) {
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
    pub(super) fn change_role(&mut self) {
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
    pub(super) fn fail_over(&mut self) {
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
    pub(super) fn kill(&mut self) {
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
