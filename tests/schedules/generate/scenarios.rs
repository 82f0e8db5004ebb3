//! Scenarios of overlapping operations.

use super::Generator;
use crate::classify::MessageKind;
use crate::gate::Direction;
use crate::step::{Action, Actor, OLD_RIDE, Replica, Step};

impl Generator {
    /// Adds operations that run while a message is held.
    fn add_concurrent(&mut self, at: Replica, depth: usize) {
        for _ in 0..self.rng.usize(1..3) {
            if self.chance(75) {
                let ((action, ride), at) = (self.random_operation(), if self.chance(80) { at.other() } else { at });
                self.run_operation(action, ride, at);
            } else {
                self.add_random(depth + 1);
            }
        }
    }

    /// Holds a message of an operation while others run.
    pub(super) fn interrupt_operation(&mut self, depth: usize) {
        let at = if self.chance(60) { self.last } else { self.replica() };
        let ride = self.sent.last().map_or(1, |(_, ride)| *ride);
        let (action, ride) = match self.rng.u32(0..10) {
            0..5 => (self.send(ride), ride),
            5..7 => self.random_operation(),
            _ => self.write(),
        };
        let (kind, direction) = [
            (MessageKind::Commit, Direction::Request),
            (MessageKind::Commit, Direction::Request),
            (MessageKind::Commit, Direction::Response),
            (MessageKind::Commit, Direction::Response),
            (MessageKind::Lock, Direction::Request),
            (MessageKind::Lock, Direction::Response),
            (MessageKind::Append, Direction::Request),
            (MessageKind::Snapshot, Direction::Response),
            (MessageKind::Location, Direction::Request),
        ][self.rng.usize(0..9)];
        let gate = self.gate(at, kind, direction, 1);
        let op = self.start(action, ride, at);
        self.steps.push(Step::Reach { gate });
        self.resolve_gate(at, (gate, direction), &[op], depth);
    }

    /// Decides what happens to the held message: after other operations, it is released, lost or delivered late.
    fn resolve_gate(&mut self, at: Replica, (gate, direction): (usize, Direction), ops: &[usize], depth: usize) {
        let waits: Vec<_> = ops.iter().map(|op| Step::Wait { op: *op }).collect();
        if self.chance(70) {
            self.add_concurrent(at, depth);
        }
        let end = match (self.rng.u32(0..100), direction) {
            (0..30, _) => Step::Release { gate },
            (30..70, Direction::Request) => Step::DeliverLate { gate },
            _ => Step::Cut { gate },
        };
        if matches!(end, Step::Release { .. }) {
            self.steps.push(end);
            self.steps.extend(waits);
            return;
        }
        // The recovery is held too: the lookup of the outcome, or what follows it.
        let nth = [1, 1, 2, 2, 2, 3][self.rng.usize(0..6)];
        let second = self.gate(at, MessageKind::Lock, Direction::Request, nth);
        self.steps.extend([end, Step::Reach { gate: second }]);
        let is_late = matches!(end, Step::DeliverLate { .. });
        let arrives_before = is_late && self.chance(60);
        if arrives_before {
            self.steps.push(Step::Release { gate });
        }
        if self.chance(60) {
            self.add_concurrent(at, depth);
        }
        self.steps.push(Step::Release { gate: second });
        self.steps.extend(waits);
        if is_late && !arrives_before {
            self.steps.push(Step::Release { gate });
        }
    }

    /// Holds two batches in flight, so that the next operations, on several rides, form one batch. That batch is held too.
    pub(super) fn batch_behind_gates(&mut self, depth: usize) {
        let at = self.replica();
        let mut ops = Vec::new();
        let mut gates = Vec::new();
        for ride in [1, 2] {
            let gate = self.gate(at, MessageKind::Commit, Direction::Request, 1);
            let action = self.send(ride);
            ops.push(self.start(action, ride, at));
            self.steps.push(Step::Reach { gate });
            gates.push(gate);
        }
        for _ in 0..self.rng.usize(2..5) {
            let ride = self.rng.usize(1..4);
            let (action, ride) = if self.chance(60) { (self.send(ride), ride) } else { self.write() };
            ops.push(self.start(action, ride, at));
        }
        if self.chance(40) {
            self.add_concurrent(at, depth);
        }
        let direction = self.direction();
        let gate = self.gate(at, MessageKind::Commit, direction, 1);
        self.steps.extend(gates.iter().map(|gate| Step::Release { gate: *gate }));
        self.steps.push(Step::Reach { gate });
        self.resolve_gate(at, (gate, direction), &ops, depth);
    }

    /// Delays or loses the reads or notifications by which a replica receives the writes of the other.
    pub(super) fn delay_reads(&mut self, depth: usize) {
        let at = self.replica();
        let (kind, direction) = [
            (MessageKind::Page, Direction::Response),
            (MessageKind::Page, Direction::Response),
            (MessageKind::Page, Direction::Request),
            (MessageKind::Hint, Direction::Response),
            (MessageKind::Hint, Direction::Response),
            (MessageKind::Heads, Direction::Response),
            (MessageKind::Values, Direction::Response),
            (MessageKind::Notify, Direction::Request),
            (MessageKind::Follow, Direction::Request),
            (MessageKind::Follow, Direction::Response),
        ][self.rng.usize(0..10)];
        let gate = self.gate(at, kind, direction, 1);
        for _ in 0..self.rng.usize(1..3) {
            match self.rng.u32(0..3) {
                0 => {
                    let ride = self.ride();
                    if !self.has_ended[ride] {
                        let action = self.assign(ride);
                        self.run_operation(action, ride, at.other());
                        self.run_operation(Action::Locate { actor: self.driver(ride) }, ride, at.other());
                    }
                }
                1 => {
                    let (action, ride) = self.random_operation();
                    self.run_operation(action, ride, at.other());
                }
                _ => self.add_random(depth + 1),
            }
        }
        if self.chance(30) {
            self.steps.push(Step::FallbackPoll { at });
        }
        let is_lost = self.chance(if kind == MessageKind::Hint { 50 } else { 20 });
        self.steps.push(if is_lost { Step::Cut { gate } } else { Step::Release { gate } });
    }

    /// Creates an expired ride again while retention deletes it.
    pub(super) fn recreate_trimmed_ride(&mut self) {
        let at = self.replica();
        let (kind, direction) = [
            (MessageKind::Lock, Direction::Request),
            (MessageKind::Lock, Direction::Response),
            (MessageKind::Commit, Direction::Request),
        ][self.rng.usize(0..3)];
        let gate = self.gate(at, kind, direction, 1);
        let driver = [Actor::FirstDriver, Actor::SecondDriver][self.rng.usize(0..2)];
        let op = self.start(Action::Assign { driver }, OLD_RIDE, at);
        self.steps.push(Step::Reach { gate });
        let retains = self.replica();
        self.steps.push(Step::Retain { at: retains });
        self.steps.extend([Step::Release { gate }, Step::Wait { op }]);
    }

    /// Makes support a ride's driver, or removes support as its driver. Their receipts before and after have different roles.
    pub(super) fn change_role(&mut self) {
        let ride = self.ride();
        if self.has_ended[ride] {
            return;
        }
        let driver = if self.driver(ride) == Actor::Support { Actor::SecondDriver } else { Actor::Support };
        for action in [None, Some(Action::Assign { driver }), None] {
            if let Some(action) = action {
                let at = self.replica();
                self.run_operation(action, ride, at);
                continue;
            }
            let (sends, marks, read) = (self.replica(), self.replica(), self.chance(50));
            self.run_operation(Action::Send { actor: Actor::Rider, named: false }, ride, sends);
            self.run_operation(Action::UpdateReceipt { actor: Actor::Support, read }, ride, marks);
        }
    }

    /// Loses the last messages of a ride in a failover, possibly while a batch of another ride is in doubt. Then other operations follow on
    /// the ride.
    pub(super) fn fail_over(&mut self) {
        let (at, ride) = (self.replica(), 2);
        if self.has_ended[ride] {
            return;
        }
        self.run_operation(Action::Send { actor: self.driver(ride), named: false }, ride, at);
        self.steps.push(Step::DetachStandby { ride });
        for _ in 0..self.rng.usize(1..3) {
            self.run_operation(Action::Send { actor: self.driver(ride), named: false }, ride, at);
        }
        if self.chance(70) {
            let direction = self.direction();
            let gate = self.gate(at, MessageKind::Commit, direction, 1);
            let action = self.send(1);
            let op = self.start(action, 1, at);
            self.steps.extend([Step::Reach { gate }, Step::FailOver { ride }, Step::Wait { op }]);
        } else {
            self.steps.push(Step::FailOver { ride });
        }
        let before = self.driver(ride);
        let action = self.assign(ride);
        self.run_operation(action, ride, at.other());
        self.run_operation(Action::Send { actor: before, named: false }, ride, at);
    }

    /// Kills a replica and starts it again. Its successor or the other replica removes the presence that was registered there.
    pub(super) fn restart_replica(&mut self) {
        self.has_killed = true;
        let at = self.replica();
        let (actor, reads) = ([Actor::FirstDriver, Actor::Rider][self.rng.usize(0..2)], at);
        self.read(actor, reads);
        let is_in_flight = self.chance(60);
        let mut waits = None;
        if is_in_flight {
            let (action, ride) = self.write();
            let direction = self.direction();
            let gate = self.gate(at, MessageKind::Commit, direction, 1);
            let op = self.start(action, ride, at);
            self.steps.push(Step::Reach { gate });
            waits = Some((op, gate));
        }
        self.steps.push(Step::Kill { at });
        if let Some((op, gate)) = waits {
            self.steps.extend([Step::Release { gate }, Step::Wait { op }]);
        }
        if self.chance(50) {
            self.add_concurrent(at, 1);
        }
        let is_held = self.chance(75);
        let gate = is_held.then(|| {
            let nth = self.rng.usize(1..11);
            let direction = self.direction();
            self.gate(at, MessageKind::Presence, direction, nth)
        });
        self.steps.push(Step::Restart { at });
        if let Some(gate) = gate {
            self.steps.push(Step::Reach { gate });
            let is_lost = self.chance(80);
            self.steps.push(if is_lost { Step::Cut { gate } } else { Step::Release { gate } });
        }
    }
}
