//! The writer of one replica: what it sends, and what it concludes from the response.

use std::collections::BTreeSet;

use crate::database::{Command, Database, Event, EventId, Kind, NO_EVENT, RIDES, Request, Ride, Row, Seq, Write};
use crate::protocol::{Rules, Scenario};
use crate::world::{Action, Transaction, World};

/// What the writer remembers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Writer {
    pub(crate) step: Step,
    /// How many batches it has taken.
    batches: u8,
    /// How many runs it has sent.
    runs: u8,
    /// How many runs of this batch on the locking path are left.
    pub(crate) runs_left: u8,
    /// The commands of the batch that have no answer yet.
    pub(crate) pending: Vec<Pending>,
    /// The runs of the batch whose responses are lost, and which may have been committed or may still be.
    pub(crate) doubts: Vec<Run>,
    /// The ride cache.
    pub(crate) cache: [Option<Head>; RIDES as usize],
}

/// Where a log ends: its last seq, and the event there.
pub(crate) type Head = (Seq, EventId);

/// What the writer does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// Takes the next batch.
    Ready,
    /// Waits for the response to what it has sent.
    Waiting,
    /// Takes the locking path; where a run is in doubt, finds out about that first.
    Locking,
    /// The same, where the topic of a ride that may have to be created was found to exist.
    TopicFound,
}

/// A command that has no answer yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pending {
    pub(crate) command: Command,
    /// The run in which it wrote something when it was last applied, if it did.
    pub(crate) wrote: Option<u8>,
    /// Whether what it wrote in an earlier run may still be committed.
    pub(crate) may_still_commit: bool,
}

/// One attempt to store a batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Run {
    /// No other run has the same.
    pub(crate) number: u8,
    pub(crate) is_optimistic: bool,
    pub(crate) writes: Vec<Write>,
    /// The answers to commands that write nothing.
    answers: Vec<(Command, Answer)>,
}

/// What a client was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    /// Nothing yet.
    #[default]
    None,
    /// 2xx, and its event is in the log.
    Stored,
    /// The same, and a failover has lost the event since.
    StoredAndLost,
    /// 2xx: there was nothing to do.
    Unchanged,
    /// 4xx: nothing was stored.
    Rejected,
    /// 503: it may have been stored or not.
    Unknown,
}

impl Run {
    pub(crate) fn rides(&self) -> BTreeSet<Ride> {
        self.writes.iter().map(|write| write.request.ride).collect()
    }
}

impl Write {
    pub(crate) fn id(&self, run: u8) -> EventId {
        EventId::Run { command: self.request.command, run }
    }
}

impl Writer {
    pub(crate) fn new(cache: [Option<Head>; RIDES as usize]) -> Self {
        let (pending, doubts) = Default::default();
        Self { step: Step::Ready, batches: 0, runs: 0, runs_left: 0, pending, doubts, cache }
    }

    fn cached(&mut self, ride: Ride) -> &mut Option<Head> {
        &mut self.cache[usize::from(ride)]
    }

    fn commands(&self) -> Vec<Command> {
        self.pending.iter().map(|pending| pending.command).collect()
    }

    /// Learns where a run has left logs.
    fn learn(&mut self, run: &Run, rides: &BTreeSet<Ride>) {
        for write in run.writes.iter().filter(|write| rides.contains(&write.request.ride)) {
            // A ride whose participants or state were changed is loaded anew.
            if write.request.kind != Kind::Created {
                *self.cached(write.request.ride) = Some((write.seq, write.id(run.number)));
            }
        }
    }
}

impl World {
    pub(crate) fn writer_actions(&self, scenario: &Scenario, actions: &mut Vec<Action>) {
        for ride in 0..RIDES {
            let head = self.database.ride(ride).topic.as_ref().map_or(0, |topic| topic.head);
            if self.writer.cache[usize::from(ride)].is_some_and(|(cached, _)| cached < head) {
                actions.push(Action::Follow(ride));
            }
        }
        match self.writer.step {
            Step::Ready => {
                let Some(batch) = scenario.batches.get(usize::from(self.writer.batches)) else { return };
                let is_cached = |request: &Request| {
                    request.kind == Kind::Message && self.writer.cache[usize::from(request.ride)].is_some()
                };
                match batch.iter().any(is_cached) {
                    true => actions.push(Action::SendOptimistically),
                    false => self.locking_actions(scenario, batch, actions),
                }
            }
            Step::Waiting => {}
            Step::Locking | Step::TopicFound => {
                let requests = self.writer.pending.iter().map(|pending| scenario.request(pending.command));
                self.locking_actions(scenario, &requests.collect::<Vec<_>>(), actions);
            }
        }
    }

    fn locking_actions(&self, scenario: &Scenario, requests: &[Request], actions: &mut Vec<Action>) {
        let is_in_doubt = !self.writer.doubts.is_empty();
        let rides: BTreeSet<_> = requests.iter().map(|request| request.ride).collect();
        if self.is_free(&rides) {
            actions.push(if is_in_doubt { Action::Check } else { Action::LockAndSend });
        }
        if is_in_doubt {
            actions.push(Action::GiveUp);
        }
        let finds_topic =
            |request: &Request| request.kind == Kind::Created && self.database.ride(request.ride).topic.is_some();
        let runs_again = !is_in_doubt || scenario.rules.check_and_run_are_one;
        if runs_again && requests.iter().any(finds_topic) && self.writer.step != Step::TopicFound {
            actions.push(Action::FindTopic);
        }
    }

    /// Takes the next batch, unless one has begun.
    fn take_batch(&mut self, scenario: &Scenario) {
        if self.writer.step == Step::Ready {
            let batch = scenario.batches[usize::from(self.writer.batches)].iter();
            let pending =
                |request: &Request| Pending { command: request.command, wrote: None, may_still_commit: false };
            self.writer.pending = batch.map(pending).collect();
            self.writer.batches += 1;
            self.writer.runs_left = 2;
            self.writer.step = Step::Locking;
        }
    }

    pub(crate) fn find_topic(&mut self, scenario: &Scenario) {
        self.take_batch(scenario);
        self.writer.step = Step::TopicFound;
    }

    pub(crate) fn send_optimistically(&mut self, scenario: &Scenario) {
        self.take_batch(scenario);
        let commands = self.writer.commands();
        let mut writes = Vec::new();
        for ride in scenario.rides(&commands) {
            // Requests of a ride keep their order: those after one that needs the locks take the locking path as well.
            let requests = commands.iter().map(|command| scenario.request(*command));
            let sends = requests.filter(|request| request.ride == ride);
            let sends: Vec<_> = sends.take_while(|request| request.kind == Kind::Message).collect();
            // What is in the cache is checked out: it is put back when it was right.
            let Some((mut head, mut after)) = self.writer.cached(ride).take_if(|_| !sends.is_empty()) else { continue };
            for request in sends {
                head += 1;
                let write = Write { request, seq: head, after, creates_topic: false };
                after = write.id(self.writer.runs);
                writes.push(write);
            }
        }
        self.send(BTreeSet::new(), writes, Vec::new());
    }

    /// Applies the commands to what is loaded under the locks, and sends what they write and COMMIT.
    pub(crate) fn lock_and_send(&mut self, scenario: &Scenario) {
        let topic_was_found = self.writer.step == Step::TopicFound;
        self.take_batch(scenario);
        self.writer.runs_left -= 1;
        let (mut writes, mut answers) = (Vec::new(), Vec::new());
        // Each command sees what those before it did.
        let mut state = self.database.clone();
        for command in self.writer.commands() {
            let request = scenario.request(command);
            if let Some(answer) = reject(&state, &request) {
                answers.push((command, answer));
                continue;
            }
            let creates_topic = request.kind == Kind::Created && !topic_was_found;
            let topic = state.ride(request.ride).topic.as_ref();
            let (head, after) = topic.map_or((0, NO_EVENT), |topic| (topic.head, topic.last));
            writes.push(Write { request, seq: head + 1, after, creates_topic });
            state.store(self.writer.runs, &request);
        }
        self.send(scenario.rides(&self.writer.commands()), writes, answers);
    }

    fn send(&mut self, locks: BTreeSet<Ride>, writes: Vec<Write>, answers: Vec<(Command, Answer)>) {
        let run = Run { number: self.writer.runs, is_optimistic: locks.is_empty(), writes, answers };
        for pending in &mut self.writer.pending {
            let wrote = run.writes.iter().any(|write| write.request.command == pending.command);
            pending.wrote = wrote.then_some(run.number);
        }
        if run.writes.is_empty() {
            // Rolls back.
            return self.finish(&run);
        }
        self.writer.runs += 1;
        self.writer.step = Step::Waiting;
        self.transactions.push(Transaction { run, locks, is_connected: true });
    }

    /// Receives the response to a run: on which rides it stored events; `None` if it was aborted.
    pub(crate) fn on_response(&mut self, run: &Run, stored: Option<&BTreeSet<Ride>>) {
        let Some(stored) = stored else { return self.run_again() };
        self.writer.learn(run, stored);
        if run.is_optimistic {
            for write in run.writes.iter().filter(|write| stored.contains(&write.request.ride)) {
                self.answer(write.request.command, Answer::Stored);
            }
            // The rest takes the locking path.
            self.writer.step = if self.writer.pending.is_empty() { Step::Ready } else { Step::Locking };
        } else if stored.len() == run.rides().len() {
            self.finish(run);
        } else {
            // A log that was locked has moved, and the rest is committed.
            self.finish_unknown();
        }
    }

    /// The response to a run is lost.
    pub(crate) fn on_doubt(&mut self, run: Run) {
        if run.is_optimistic {
            self.writer.runs_left -= 1;
        }
        // What was cached may be of a database that is no more.
        self.writer.cache = Default::default();
        self.writer.doubts.push(run);
        self.writer.step = Step::Locking;
    }

    /// The commands may be applied again, unless that was tried often enough.
    pub(crate) fn run_again(&mut self) {
        match self.writer.runs_left {
            0 => self.finish_unknown(),
            _ => self.writer.step = Step::Locking,
        }
    }

    /// Nothing can be found out in time: 503 to all whose events may be in the log. The others run by themselves.
    pub(crate) fn give_up(&mut self) {
        let doubts = std::mem::take(&mut self.writer.doubts);
        for pending in self.writer.pending.clone() {
            let is_in_doubt = doubts.iter().any(|run| pending.wrote == Some(run.number));
            if is_in_doubt || pending.may_still_commit {
                self.answer(pending.command, Answer::Unknown);
            }
        }
        match self.writer.pending.is_empty() {
            true => self.writer.step = Step::Ready,
            false => {
                self.writer.runs_left = 2;
                self.writer.step = Step::Locking;
            }
        }
    }

    pub(crate) fn answer(&mut self, command: Command, answer: Answer) {
        self.writer.pending.retain(|pending| pending.command != command);
        self.answers[usize::from(command)] = answer;
    }

    /// A run on the locking path is committed, or has nothing to commit: answers all that is left. A command that writes
    /// nothing now, and may still be committed by an earlier run, has not raised the head that this needs: 503.
    pub(crate) fn finish(&mut self, run: &Run) {
        for Pending { command, wrote, may_still_commit } in self.writer.pending.clone() {
            let decided = run.answers.iter().find(|(of, _)| *of == command).map(|(_, answer)| *answer);
            self.answer(
                command,
                match decided {
                    _ if wrote.is_some() => Answer::Stored,
                    Some(answer) if !may_still_commit => answer,
                    _ => Answer::Unknown,
                },
            );
        }
        self.writer.doubts.clear();
        self.writer.step = Step::Ready;
    }

    pub(crate) fn finish_unknown(&mut self) {
        self.writer.commands().into_iter().for_each(|command| self.answer(command, Answer::Unknown));
        self.writer.doubts.clear();
        self.writer.step = Step::Ready;
    }

    /// The hub has read a log for its readers, and the cache goes along: unless the ride has changed, or its log does not go
    /// on from the event that is in the cache.
    pub(crate) fn follow(&mut self, rules: &Rules, ride: Ride) {
        let Some((head, last)) = self.writer.cached(ride).take() else { return };
        let Some(topic) = &self.database.ride(ride).topic else { return };
        let is_same_log = !rules.heads_have_ids || topic.event(head).is_some_and(|event| event.id == last);
        let mut news = topic.events.iter().filter(|event| event.seq > head);
        let leaves_ride = |event: &Event| matches!(event.kind, Kind::Message | Kind::Edited | Kind::Deleted);
        let is_next = topic.event(head + 1).is_some();
        if is_same_log && is_next && news.all(leaves_ride) {
            *self.writer.cached(ride) = Some((topic.head, topic.last));
        }
    }
}

/// The answer to a request that writes nothing.
fn reject(state: &Database, request: &Request) -> Option<Answer> {
    let row = state.ride(request.ride).row;
    let has_content = state.traces.get(usize::from(request.message)).is_some_and(|trace| trace.has_content);
    match request.kind {
        Kind::Created if row != Row::Absent => Some(Answer::Unchanged),
        Kind::Deleted if row != Row::Absent && !has_content => Some(Answer::Unchanged),
        Kind::Deleted if row == Row::Absent => Some(Answer::Rejected),
        Kind::Edited if !has_content => Some(Answer::Rejected),
        Kind::Message | Kind::Edited if row != Row::Open => Some(Answer::Rejected),
        _ => None,
    }
}
