//! What the writer concludes about runs in doubt, whose responses are lost.

use std::collections::BTreeMap;

use crate::database::{Kind, Request, Ride, Write};
use crate::protocol::{Rules, Scenario, Standby};
use crate::system::SystemState;
use crate::writer::{Response, Run, Step};

/// What the log of one ride contains at the seqs of a run's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LogEntry {
    /// The run's events.
    Stored,
    /// Another event.
    Superseded,
    /// Nothing: the log ends before them.
    Absent,
    /// Nothing: retention has deleted that part of the log.
    Trimmed,
}

/// The outcome of a run on one ride.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Committed,
    NotCommitted,
    /// It is not committed, but an optimistic run may still arrive.
    MayStillCommit,
    /// The outcome cannot be found.
    Unknown,
}

type Outcomes = BTreeMap<Ride, Outcome>;

impl SystemState {
    /// Looks up the events of the runs in doubt under the locks, and resolves the runs. The remaining commands of the batch then run again:
    /// in the same transaction, or in the next one if an event was found, which this transaction then commits.
    pub(crate) fn check(&mut self, scenario: &Scenario) {
        let in_doubt = std::mem::take(&mut self.writer.in_doubt);
        let outcomes = |run: Run| (self.outcomes(&scenario.rules, &run), run);
        let checked: Vec<_> = in_doubt.into_iter().map(outcomes).collect();
        let finds = checked.iter().any(|(outcomes, _)| outcomes.values().any(|it| *it == Outcome::Committed));
        if finds && scenario.rules.check_waits_for_standby && scenario.standby != Standby::Asynchronous {
            self.wait_for_standby();
        }
        for (outcomes, run) in checked {
            self.resolve(&run, &outcomes);
            let has = |wanted| outcomes.values().any(|outcome| *outcome == wanted);
            if has(Outcome::MayStillCommit)
                && !has(Outcome::Committed)
                && scenario.rules.check_and_run_share_transaction
            {
                self.writer.in_doubt.push(run);
            }
        }
        if self.writer.pending.is_empty() {
            self.writer.step = Step::Ready;
        } else if self.writer.runs_left == 0 {
            self.finish_unknown();
        } else if finds {
            self.writer.step = Step::Locking;
        } else if scenario.rules.check_and_run_share_transaction {
            self.lock_and_send(scenario);
        }
    }

    /// Responds to the commands whose outcome is known. The others remain pending.
    fn resolve(&mut self, run: &Run, outcomes: &Outcomes) {
        for pending in self.writer.pending.clone() {
            let is_of_run = pending.written_in == Some(run.number);
            let Some(outcome) = run.outcome(pending.command, outcomes) else { continue };
            match outcome {
                Outcome::Committed if is_of_run => self.respond(pending.command, Response::Stored),
                // It was applied again since, with another response.
                Outcome::Committed | Outcome::Unknown if is_of_run || pending.may_still_commit && run.is_optimistic => {
                    self.respond(pending.command, Response::Unknown);
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
        let has = |wanted: LogEntry| found.values().any(|found| *found == wanted);
        if run.is_optimistic {
            // Each ride has its own outcome, but if one is committed, none may still commit.
            let is_committed = has(LogEntry::Stored);
            let outcome = |found| match found {
                LogEntry::Stored => Outcome::Committed,
                LogEntry::Absent if !is_committed => Outcome::MayStillCommit,
                LogEntry::Trimmed if rules.missing_event_may_be_trimmed => Outcome::Unknown,
                LogEntry::Trimmed if !is_committed => Outcome::MayStillCommit,
                LogEntry::Superseded | LogEntry::Absent | LogEntry::Trimmed => Outcome::NotCommitted,
            };
            return found.into_iter().map(|(ride, found)| (ride, outcome(found))).collect();
        }
        // All of it is committed, or nothing. It has ended, because its locks are free.
        let is_whole = found.values().all(|found| *found == LogEntry::Stored);
        let outcome = match () {
            () if is_whole || rules.any_event_proves_commit && has(LogEntry::Stored) => Outcome::Committed,
            () if has(LogEntry::Superseded) || has(LogEntry::Absent) => Outcome::NotCommitted,
            () if rules.missing_event_may_be_trimmed && !has(LogEntry::Stored) => Outcome::Unknown,
            () => Outcome::NotCommitted,
        };
        found.into_keys().map(|ride| (ride, outcome)).collect()
    }

    /// Returns what a ride's log contains of a run (`sql/events/outcome.sql`).
    fn find(&self, rules: &Rules, run: &Run, ride: Ride) -> LogEntry {
        let topic = self.database.ride(ride).topic.as_ref();
        let event = |write: &Write| topic.and_then(|topic| topic.event(write.seq));
        let mut writes = run.writes.iter().filter(|write| write.request.ride == ride);
        if !rules.batch_id_proves_commit {
            // Events that the run itself has erased were not looked up.
            let mut lasting = writes.filter(|write| !run.erases(write));
            let is_there =
                |write: &Write| event(write).is_some_and(|event| event.id == write.id(run.number) && !event.is_erased);
            return if lasting.all(is_there) { LogEntry::Stored } else { LogEntry::Absent };
        }
        let Some(first) = writes.next() else { return LogEntry::Absent };
        match (topic, event(first)) {
            (Some(topic), _) if topic.last.is_of_run(run.number) => LogEntry::Stored,
            (_, Some(event)) if event.id.is_of_run(run.number) => LogEntry::Stored,
            (_, Some(_)) => LogEntry::Superseded,
            (Some(topic), None) if topic.head >= first.seq => LogEntry::Trimmed,
            (None, None) if first.seq > 1 => LogEntry::Trimmed,
            (_, None) => LogEntry::Absent,
        }
    }
}

impl Run {
    /// Returns the outcome of a command's event, or `None` if it appended none.
    fn outcome(&self, command: u8, outcomes: &Outcomes) -> Option<Outcome> {
        let write = self.writes.iter().find(|write| write.request.command == command)?;
        outcomes.get(&write.request.ride).copied()
    }

    /// Whether the run erases the data of this event of its own.
    fn erases(&self, write: &Write) -> bool {
        let Request { kind, message, .. } = write.request;
        let mut requests = self.writes.iter().map(|write| write.request);
        kind != Kind::Deleted && requests.any(|request| request.kind == Kind::Deleted && request.message == message)
    }
}
