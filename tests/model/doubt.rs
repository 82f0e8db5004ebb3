//! What the writer concludes about runs in doubt: those whose responses are lost.

use std::collections::BTreeMap;

use crate::database::{Kind, Request, Ride, Write};
use crate::protocol::{Rules, Scenario, Standby};
use crate::world::World;
use crate::writer::{Answer, Run, Step};

/// What the log of one ride says about a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// It has the run's events.
    Stored,
    /// It has another event in their place.
    Superseded,
    /// It ends before them.
    Absent,
    /// Their place is no longer in the log.
    Trimmed,
}

/// What became of what a run wrote on one ride.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Stored,
    NotStored,
    /// It is not stored, but what was sent without locks may still arrive.
    MayStillCommit,
    /// Nobody can tell.
    Unknown,
}

type Outcomes = BTreeMap<Ride, Outcome>;

impl World {
    /// Looks under the locks for the events of the runs in doubt, and concludes. What is left of the batch then runs again: in
    /// the same transaction, or in the next one where something was found, which this one then commits.
    pub(crate) fn check(&mut self, scenario: &Scenario) {
        let doubts = std::mem::take(&mut self.writer.doubts);
        let outcomes = |run: Run| (self.outcomes(&scenario.rules, &run), run);
        let checked: Vec<_> = doubts.into_iter().map(outcomes).collect();
        let finds = checked.iter().any(|(outcomes, _)| outcomes.values().any(|it| *it == Outcome::Stored));
        if finds && scenario.rules.check_waits_for_standby && scenario.standby != Standby::Asynchronous {
            self.wait_for_standby();
        }
        for (outcomes, run) in checked {
            self.conclude(&run, &outcomes);
            let has = |wanted| outcomes.values().any(|outcome| *outcome == wanted);
            if has(Outcome::MayStillCommit) && !has(Outcome::Stored) && scenario.rules.check_and_run_are_one {
                self.writer.doubts.push(run);
            }
        }
        if self.writer.pending.is_empty() {
            self.writer.step = Step::Ready;
        } else if self.writer.runs_left == 0 {
            self.finish_unknown();
        } else if finds {
            self.writer.step = Step::Locking;
        } else if scenario.rules.check_and_run_are_one {
            self.lock_and_send(scenario);
        }
    }

    /// Answers the commands of which the outcome of a run says what became of them. The others are left.
    fn conclude(&mut self, run: &Run, outcomes: &Outcomes) {
        for pending in self.writer.pending.clone() {
            let is_of_run = pending.wrote == Some(run.number);
            let Some(outcome) = run.outcome(pending.command, outcomes) else { continue };
            match outcome {
                Outcome::Stored if is_of_run => self.answer(pending.command, Answer::Stored),
                // It was applied again since, with another answer.
                Outcome::Stored | Outcome::Unknown if is_of_run || pending.may_still_commit && run.is_optimistic => {
                    self.answer(pending.command, Answer::Unknown);
                }
                _ if run.is_optimistic => {
                    let mut all = self.writer.pending.iter_mut();
                    let found = all.find(|other| other.command == pending.command);
                    found.into_iter().for_each(|it| it.may_still_commit = outcome == Outcome::MayStillCommit);
                }
                _ => {}
            }
        }
    }

    fn outcomes(&self, rules: &Rules, run: &Run) -> Outcomes {
        let found = run.rides().into_iter().map(|ride| (ride, self.find(rules, run, ride)));
        let found: BTreeMap<_, _> = found.collect();
        let has = |wanted: Found| found.values().any(|found| *found == wanted);
        if run.is_optimistic {
            // Each ride is decided by itself; but what has arrived has arrived as a whole.
            let has_arrived = has(Found::Stored);
            let outcome = |found| match found {
                Found::Stored => Outcome::Stored,
                Found::Absent if !has_arrived => Outcome::MayStillCommit,
                Found::Trimmed if rules.absence_is_no_proof => Outcome::Unknown,
                Found::Trimmed if !has_arrived => Outcome::MayStillCommit,
                Found::Superseded | Found::Absent | Found::Trimmed => Outcome::NotStored,
            };
            return found.into_iter().map(|(ride, found)| (ride, outcome(found))).collect();
        }
        // All of it is committed, or nothing; and it has ended, since its locks are free.
        let is_whole = found.values().all(|found| *found == Found::Stored);
        let outcome = match () {
            () if is_whole || rules.any_event_proves && has(Found::Stored) => Outcome::Stored,
            () if has(Found::Superseded) || has(Found::Absent) => Outcome::NotStored,
            () if rules.absence_is_no_proof && !has(Found::Stored) => Outcome::Unknown,
            () => Outcome::NotStored,
        };
        found.into_keys().map(|ride| (ride, outcome)).collect()
    }

    /// What a ride's log says about a run (`sql/events/outcome.sql`).
    fn find(&self, rules: &Rules, run: &Run, ride: Ride) -> Found {
        let topic = self.database.ride(ride).topic.as_ref();
        let event = |write: &Write| topic.and_then(|topic| topic.event(write.seq));
        let mut writes = run.writes.iter().filter(|write| write.request.ride == ride);
        if !rules.identity_is_evidence {
            // What the run has erased itself was not looked for.
            let mut lasting = writes.filter(|write| !run.erases(write));
            let is_there =
                |write: &Write| event(write).is_some_and(|event| event.id == write.id(run.number) && !event.is_erased);
            return if lasting.all(is_there) { Found::Stored } else { Found::Absent };
        }
        let Some(first) = writes.next() else { return Found::Absent };
        match (topic, event(first)) {
            (Some(topic), _) if topic.last.is_of_run(run.number) => Found::Stored,
            (_, Some(event)) if event.id.is_of_run(run.number) => Found::Stored,
            (_, Some(_)) => Found::Superseded,
            (Some(topic), None) if topic.head >= first.seq => Found::Trimmed,
            (None, None) if first.seq > 1 => Found::Trimmed,
            (_, None) => Found::Absent,
        }
    }
}

impl Run {
    /// What became of what a command wrote; `None` where it wrote nothing.
    fn outcome(&self, command: u8, outcomes: &Outcomes) -> Option<Outcome> {
        let write = self.writes.iter().find(|write| write.request.command == command)?;
        outcomes.get(&write.request.ride).copied()
    }

    /// Whether it erases the data of one of its own events.
    fn erases(&self, write: &Write) -> bool {
        let Request { kind, message, .. } = write.request;
        let mut requests = self.writes.iter().map(|write| write.request);
        kind != Kind::Deleted && requests.any(|request| request.kind == Kind::Deleted && request.message == message)
    }
}
