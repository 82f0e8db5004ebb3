//! The writer of one replica: what it sends, and what it does after the response.

use std::collections::BTreeSet;

use crate::database::{Command, Database, Event, EventId, Kind, NO_EVENT, RIDES, Request, Ride, Row, Seq, Write};
use crate::protocol::{Rules, Scenario};
use crate::system::{Action, SystemState, Transaction};

/// The state of the writer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Writer {
    pub(crate) step: Step,
    /// The number of batches that it has taken.
    batches: u8,
    /// The number of runs that it has sent.
    runs: u8,
    /// The number of runs of this batch that are left on the locking path.
    pub(crate) runs_left: u8,
    /// The commands of the batch without a response.
    pub(crate) pending: Vec<Pending>,
    /// The runs in doubt: their responses are lost, and they may be committed or may still be.
    pub(crate) in_doubt: Vec<Run>,
    /// The ride cache.
    pub(crate) cache: [Option<Head>; RIDES as usize],
}

/// The head of a log: its last seq, and the event there.
pub(crate) type Head = (Seq, EventId);

/// What the writer does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// Takes the next batch.
    Ready,
    /// Waits for the response to what it has sent.
    Waiting,
    /// Takes the locking path. If a run is in doubt, checks it first.
    Locking,
    /// The same, after the topic of a ride that may have to be created was found to exist.
    TopicFound,
}

/// A command without a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pending {
    pub(crate) command: Command,
    /// The run in which it appended an event when it was last applied, if it did.
    pub(crate) written_in: Option<u8>,
    /// Whether its event of an earlier run may still be committed.
    pub(crate) may_still_commit: bool,
}

/// One attempt to store a batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Run {
    /// Unique per run.
    pub(crate) number: u8,
    pub(crate) is_optimistic: bool,
    pub(crate) writes: Vec<Write>,
    /// The responses to commands that append nothing.
    responses: Vec<(Command, Response)>,
}

/// The response to a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Response {
    /// None yet.
    #[default]
    None,
    /// 2xx, and the event is in the log.
    Stored,
    /// 2xx, but a failover has lost the event since.
    StoredAndLost,
    /// 2xx without an event.
    Unchanged,
    /// 4xx: nothing was stored.
    Rejected,
    /// 503: the outcome is unknown.
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
        let (pending, in_doubt) = Default::default();
        Self { step: Step::Ready, batches: 0, runs: 0, runs_left: 0, pending, in_doubt, cache }
    }

    fn cached(&mut self, ride: Ride) -> &mut Option<Head> {
        &mut self.cache[usize::from(ride)]
    }

    fn commands(&self) -> Vec<Command> {
        self.pending.iter().map(|pending| pending.command).collect()
    }

    /// Caches the heads of a stored run.
    fn update_cache(&mut self, run: &Run, rides: &BTreeSet<Ride>) {
        for write in run.writes.iter().filter(|write| rides.contains(&write.request.ride)) {
            // A ride whose participants or state were changed is loaded again.
            if write.request.kind != Kind::Created {
                *self.cached(write.request.ride) = Some((write.seq, write.id(run.number)));
            }
        }
    }
}

impl SystemState {
    pub(crate) fn writer_actions(&self, scenario: &Scenario, actions: &mut Vec<Action>) {
        for ride in 0..RIDES {
            let head = self.database.ride(ride).topic.as_ref().map_or(0, |topic| topic.head);
            if self.writer.cache[usize::from(ride)].is_some_and(|(cached, _)| cached < head) {
                actions.push(Action::UpdateCache(ride));
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
        let is_in_doubt = !self.writer.in_doubt.is_empty();
        let rides: BTreeSet<_> = requests.iter().map(|request| request.ride).collect();
        if self.is_free(&rides) {
            actions.push(if is_in_doubt { Action::Check } else { Action::LockAndSend });
        }
        if is_in_doubt {
            actions.push(Action::GiveUp);
        }
        let finds_topic =
            |request: &Request| request.kind == Kind::Created && self.database.ride(request.ride).topic.is_some();
        let runs_again = !is_in_doubt || scenario.rules.check_and_run_share_transaction;
        if runs_again && requests.iter().any(finds_topic) && self.writer.step != Step::TopicFound {
            actions.push(Action::FindTopic);
        }
    }

    /// Takes the next batch, unless one has begun.
    fn take_batch(&mut self, scenario: &Scenario) {
        if self.writer.step == Step::Ready {
            let batch = scenario.batches[usize::from(self.writer.batches)].iter();
            let pending =
                |request: &Request| Pending { command: request.command, written_in: None, may_still_commit: false };
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
            // The requests of a ride keep their order: those after a request for the locking path take that path too.
            let requests = commands.iter().map(|command| scenario.request(*command));
            let sends = requests.filter(|request| request.ride == ride);
            let sends: Vec<_> = sends.take_while(|request| request.kind == Kind::Message).collect();
            // The cached ride is checked out. It is cached again after a success.
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

    /// Applies the commands to the state loaded under the locks, and sends the appends and COMMIT.
    pub(crate) fn lock_and_send(&mut self, scenario: &Scenario) {
        let topic_was_found = self.writer.step == Step::TopicFound;
        self.take_batch(scenario);
        self.writer.runs_left -= 1;
        let (mut writes, mut responses) = (Vec::new(), Vec::new());
        // Each command sees the changes of those before it.
        let mut state = self.database.clone();
        for command in self.writer.commands() {
            let request = scenario.request(command);
            if let Some(response) = reject(&state, &request) {
                responses.push((command, response));
                continue;
            }
            let creates_topic = request.kind == Kind::Created && !topic_was_found;
            let topic = state.ride(request.ride).topic.as_ref();
            let (head, after) = topic.map_or((0, NO_EVENT), |topic| (topic.head, topic.last));
            writes.push(Write { request, seq: head + 1, after, creates_topic });
            state.store(self.writer.runs, &request);
        }
        self.send(scenario.rides(&self.writer.commands()), writes, responses);
    }

    fn send(&mut self, locks: BTreeSet<Ride>, writes: Vec<Write>, responses: Vec<(Command, Response)>) {
        let run = Run { number: self.writer.runs, is_optimistic: locks.is_empty(), writes, responses };
        for pending in &mut self.writer.pending {
            let has_written = run.writes.iter().any(|write| write.request.command == pending.command);
            pending.written_in = has_written.then_some(run.number);
        }
        if run.writes.is_empty() {
            // The transaction is rolled back.
            return self.finish(&run);
        }
        self.writer.runs += 1;
        self.writer.step = Step::Waiting;
        self.transactions.push(Transaction { run, locks, is_connected: true });
    }

    /// Handles the response to a run: the rides on which it stored events, or `None` if it was aborted.
    pub(crate) fn on_response(&mut self, run: &Run, stored: Option<&BTreeSet<Ride>>) {
        let Some(stored) = stored else { return self.run_again() };
        self.writer.update_cache(run, stored);
        if run.is_optimistic {
            for write in run.writes.iter().filter(|write| stored.contains(&write.request.ride)) {
                self.respond(write.request.command, Response::Stored);
            }
            // The remaining commands take the locking path.
            self.writer.step = if self.writer.pending.is_empty() { Step::Ready } else { Step::Locking };
        } else if stored.len() == run.rides().len() {
            self.finish(run);
        } else {
            // A locked log has changed, and the rest is committed.
            self.finish_unknown();
        }
    }

    /// Handles the loss of the connection before the response to a run.
    pub(crate) fn on_connection_lost(&mut self, run: Run) {
        if run.is_optimistic {
            self.writer.runs_left -= 1;
        }
        // The cached state may be that of a lost database.
        self.writer.cache = Default::default();
        self.writer.in_doubt.push(run);
        self.writer.step = Step::Locking;
    }

    /// Runs the commands again, unless all runs are used up.
    pub(crate) fn run_again(&mut self) {
        match self.writer.runs_left {
            0 => self.finish_unknown(),
            _ => self.writer.step = Step::Locking,
        }
    }

    /// Gives up the check: commands whose events may be in the log get 503. The others run without them.
    pub(crate) fn give_up(&mut self) {
        let in_doubt = std::mem::take(&mut self.writer.in_doubt);
        for pending in self.writer.pending.clone() {
            let is_in_doubt = in_doubt.iter().any(|run| pending.written_in == Some(run.number));
            if is_in_doubt || pending.may_still_commit {
                self.respond(pending.command, Response::Unknown);
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

    pub(crate) fn respond(&mut self, command: Command, response: Response) {
        self.writer.pending.retain(|pending| pending.command != command);
        self.responses[usize::from(command)] = response;
    }

    /// Responds to all remaining commands after a run on the locking path that is committed or has nothing to commit.
    ///
    /// A command that appends nothing now, and may still be committed by an earlier run, has not moved the head that this commit needs. It
    /// gets 503.
    pub(crate) fn finish(&mut self, run: &Run) {
        for Pending { command, written_in, may_still_commit } in self.writer.pending.clone() {
            let decided = run.responses.iter().find(|(of, _)| *of == command).map(|(_, response)| *response);
            self.respond(
                command,
                match decided {
                    _ if written_in.is_some() => Response::Stored,
                    Some(response) if !may_still_commit => response,
                    _ => Response::Unknown,
                },
            );
        }
        self.writer.in_doubt.clear();
        self.writer.step = Step::Ready;
    }

    pub(crate) fn finish_unknown(&mut self) {
        self.writer.commands().into_iter().for_each(|command| self.respond(command, Response::Unknown));
        self.writer.in_doubt.clear();
        self.writer.step = Step::Ready;
    }

    /// Applies the events that the hub has read to the cache. The ride is removed if it has changed, or if its log does not continue from
    /// the cached event.
    pub(crate) fn apply_events(&mut self, rules: &Rules, ride: Ride) {
        let Some((head, last)) = self.writer.cached(ride).take() else { return };
        let Some(topic) = &self.database.ride(ride).topic else { return };
        let is_same_log = !rules.heads_compare_ids || topic.event(head).is_some_and(|event| event.id == last);
        let mut new_events = topic.events.iter().filter(|event| event.seq > head);
        let leaves_ride_unchanged = |event: &Event| matches!(event.kind, Kind::Message | Kind::Edited | Kind::Deleted);
        let is_next = topic.event(head + 1).is_some();
        if is_same_log && is_next && new_events.all(leaves_ride_unchanged) {
            *self.writer.cached(ride) = Some((topic.head, topic.last));
        }
    }
}

/// Returns the response to a request that appends nothing.
fn reject(state: &Database, request: &Request) -> Option<Response> {
    let row = state.ride(request.ride).row;
    let has_content = state.effects.get(usize::from(request.message)).is_some_and(|effects| effects.has_content);
    match request.kind {
        Kind::Created if row != Row::Absent => Some(Response::Unchanged),
        Kind::Deleted if row != Row::Absent && !has_content => Some(Response::Unchanged),
        Kind::Deleted if row == Row::Absent => Some(Response::Rejected),
        Kind::Edited if !has_content => Some(Response::Rejected),
        Kind::Message | Kind::Edited if row != Row::Open => Some(Response::Rejected),
        _ => None,
    }
}
