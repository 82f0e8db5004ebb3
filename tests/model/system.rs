//! The state of the whole system, and every step that can follow: of the writer, of Postgres and the network, of other replicas, of
//! retention, and a failover.

use std::collections::BTreeSet;

use stateright::Model;

use crate::database::{COMMANDS, Command, Database, EventId, Kind, NO_MESSAGE, RIDES, Ride, RideState, Row, Topic};
use crate::protocol::{Budget, Scenario, Standby};
use crate::writer::{Response, Run, Step, Writer};

/// The state of the whole system.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SystemState {
    pub(crate) database: Database,
    /// The states before the last commits, oldest first. A failover may restore any of them.
    pub(crate) earlier: Vec<Database>,
    /// The writer's transactions that have not ended in Postgres, oldest first.
    pub(crate) transactions: Vec<Transaction>,
    pub(crate) writer: Writer,
    /// The responses to the clients.
    pub(crate) responses: [Response; COMMANDS],
    pub(crate) budget: Budget,
}

/// A transaction whose COMMIT was sent and has not arrived. On the optimistic path it is a single statement.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Transaction {
    pub(crate) run: Run,
    /// The rides whose topics it has locked. None on the optimistic path.
    pub(crate) locks: BTreeSet<Ride>,
    /// Whether the writer still waits for the response.
    pub(crate) is_connected: bool,
}

/// A step. Each is atomic, because it is one transaction in Postgres, or runs under locks that are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// The writer applies a batch to cached rides, and sends it as one statement.
    SendOptimistically,
    /// The writer locks the batch's topics and loads, applies the commands, and sends the appends and COMMIT.
    LockAndSend,
    /// The writer's `insert … on conflict do nothing` finds the topic of a ride that it may have to create.
    FindTopic,
    /// The writer locks the topics of a batch in doubt, and looks up its events. It then releases the locks, or continues as `LockAndSend`
    /// in the same transaction.
    Check,
    /// The hub has read the events of others in a ride's log, and updates the ride cache.
    UpdateCache(Ride),
    /// The writer cannot check within its timeout: 503.
    GiveUp,

    /// The transaction arrives and is executed, and the response comes back.
    Commit,
    /// The transaction is executed, but the response is lost with the connection.
    CommitUnseen,
    /// The same, and the commit is visible before the standby has it: a cancel request or a restart of Postgres ended the wait for the
    /// standby.
    CommitBeforeStandby,
    /// The connection is lost before the transaction arrives.
    LoseConnection,
    /// A transaction on a lost connection arrives: a late commit.
    CommitLate(usize),
    /// Postgres detects a lost connection, and rolls back.
    RollBack(usize),

    /// Another replica sends a message.
    OtherSends(Ride),
    /// Another replica deletes the message of a command.
    OtherDeletes(Command),
    /// Another replica closes a ride's chat.
    OtherCloses(Ride),
    /// Another replica reopens a ride's chat. Retention may have deleted the log before.
    OtherReopens(Ride),
    /// Another replica creates a ride.
    OtherCreates(Ride),

    /// Retention deletes a ride's log.
    TrimLog(Ride),
    /// Retention deletes a ride.
    DeleteRide(Ride),

    /// The standby takes over, without the last commits. Nothing more reaches the old primary.
    FailOver { lost_commits: usize },
}

impl Model for Scenario {
    type State = SystemState;
    type Action = Action;

    fn init_states(&self) -> Vec<SystemState> {
        let mut database = Database::new();
        for (ride, row) in (0..).zip(self.rows) {
            let state = database.ride_mut(ride);
            state.row = row;
            if row == Row::Trimmed {
                state.topic.iter_mut().for_each(|topic| topic.events.clear());
            }
        }
        let head = |ride: Ride| database.ride(ride).topic.as_ref().map(|topic| (topic.head, topic.last));
        let caches = [[0, 1].map(head), [None, None]];
        let system = |cache| SystemState {
            database: database.clone(),
            earlier: Vec::new(),
            transactions: Vec::new(),
            writer: Writer::new(cache),
            responses: Default::default(),
            budget: self.budget,
        };
        caches.map(system).to_vec()
    }

    fn actions(&self, system: &SystemState, actions: &mut Vec<Action>) {
        system.writer_actions(self, actions);
        system.postgres_actions(self, actions);
        system.other_actions(self, actions);
        if system.budget.failovers > 0 {
            actions.extend((0..=system.earlier.len()).map(|lost_commits| Action::FailOver { lost_commits }));
        }
    }

    fn next_state(&self, system: &SystemState, action: Action) -> Option<SystemState> {
        let mut system = system.clone();
        system.apply(self, action);
        Some(system)
    }

    fn properties(&self) -> Vec<stateright::Property<Self>> {
        crate::properties::all()
    }
}

impl SystemState {
    /// Whether no transaction holds the lock of any of these rides' topics.
    pub(crate) fn is_free(&self, rides: &BTreeSet<Ride>) -> bool {
        self.transactions.iter().all(|transaction| transaction.locks.is_disjoint(rides))
    }

    /// Returns the transaction for whose response the writer waits.
    fn current(&self) -> Option<usize> {
        self.transactions.iter().position(|transaction| transaction.is_connected)
    }

    fn postgres_actions(&self, scenario: &Scenario, actions: &mut Vec<Action>) {
        for (index, transaction) in self.transactions.iter().enumerate() {
            let is_locking = !transaction.locks.is_empty();
            match transaction.is_connected {
                true => {
                    actions.push(Action::Commit);
                    if self.budget.losses > 0 {
                        actions.extend([Action::LoseConnection, Action::CommitUnseen]);
                        if scenario.standby == Standby::SynchronousUnlessCancelled {
                            actions.push(Action::CommitBeforeStandby);
                        }
                    }
                }
                false => {
                    actions.push(Action::CommitLate(index));
                    // A transaction without locks need not be rolled back: that it never arrives is not a step.
                    if is_locking {
                        actions.push(Action::RollBack(index));
                    }
                }
            }
        }
    }

    fn other_actions(&self, scenario: &Scenario, actions: &mut Vec<Action>) {
        for ride in (0..RIDES).filter(|ride| self.is_free(&BTreeSet::from([*ride]))) {
            let row = self.database.ride(ride).row;
            if self.budget.others > 0 {
                match row {
                    Row::Open => actions.extend([Action::OtherSends(ride), Action::OtherCloses(ride)]),
                    // Assumption: retention does not delete a ride, and the ride is not created again, while the writer's batch is in
                    // doubt. The former takes days, the latter a second.
                    Row::Absent if !scenario.is_stored(&self.database, ride) => {
                        actions.push(Action::OtherCreates(ride))
                    }
                    Row::Closed | Row::Trimmed => actions.push(Action::OtherReopens(ride)),
                    Row::Absent => {}
                }
                let requests = scenario.requests().filter(|request| request.ride == ride);
                let deletable = requests.filter(|request| self.database.effects(request.command).has_content);
                actions.extend(deletable.map(|request| Action::OtherDeletes(request.command)));
            }
            // Retention takes the locks too, and skips what others have locked.
            match row {
                Row::Closed if self.budget.retention > 0 => actions.push(Action::TrimLog(ride)),
                Row::Trimmed if self.budget.retention > 0 => actions.push(Action::DeleteRide(ride)),
                _ => {}
            }
        }
    }

    fn apply(&mut self, scenario: &Scenario, action: Action) {
        match action {
            Action::SendOptimistically => self.send_optimistically(scenario),
            Action::LockAndSend => self.lock_and_send(scenario),
            Action::FindTopic => self.find_topic(scenario),
            Action::Check => self.check(scenario),
            Action::UpdateCache(ride) => self.apply_events(&scenario.rules, ride),
            Action::GiveUp => self.give_up(),
            Action::Commit => {
                let Some(index) = self.current() else { return };
                let (run, stored) = self.commit(scenario, index);
                self.on_response(&run, stored.as_ref());
            }
            Action::CommitUnseen | Action::CommitBeforeStandby => {
                let Some(index) = self.current() else { return };
                self.budget.losses -= 1;
                let before = self.database.clone();
                let (run, _) = self.commit(scenario, index);
                self.on_connection_lost(run);
                if action == Action::CommitBeforeStandby {
                    self.earlier.push(before);
                }
            }
            Action::LoseConnection => {
                let Some(index) = self.current() else { return };
                self.budget.losses -= 1;
                self.transactions[index].is_connected = false;
                self.on_connection_lost(self.transactions[index].run.clone());
            }
            Action::CommitLate(index) => drop(self.commit(scenario, index)),
            Action::RollBack(index) => drop(self.transactions.remove(index)),
            Action::OtherSends(ride) => self.by_other_replica(scenario, ride, |state, id| {
                state.append(Kind::Message, id, NO_MESSAGE);
            }),
            Action::OtherCloses(ride) => self.by_other_replica(scenario, ride, |state, id| {
                state.row = Row::Closed;
                state.append(Kind::Closed, id, NO_MESSAGE);
            }),
            Action::OtherReopens(ride) => self.by_other_replica(scenario, ride, |state, id| {
                state.row = Row::Open;
                state.append(Kind::Reopened, id, NO_MESSAGE);
            }),
            Action::OtherCreates(ride) => self.by_other_replica(scenario, ride, |state, id| {
                *state = RideState { row: Row::Open, topic: Some(Topic::new()) };
                state.append(Kind::Created, id, NO_MESSAGE);
            }),
            Action::OtherDeletes(message) => {
                let ride = scenario.request(message).ride;
                let mut after = self.database.clone();
                after.erase(ride, message);
                after.ride_mut(ride).append(Kind::Deleted, self.other_id(), message);
                self.store(scenario, after);
            }
            Action::TrimLog(ride) => self.by_retention(scenario, |database| {
                let state = database.ride_mut(ride);
                state.row = Row::Trimmed;
                state.topic.iter_mut().for_each(|topic| topic.events.clear());
            }),
            Action::DeleteRide(ride) => self.by_retention(scenario, |database| {
                *database.ride_mut(ride) = RideState { row: Row::Absent, topic: None };
                let requests = scenario.requests().filter(|request| request.ride == ride);
                requests.for_each(|request| database.effects_mut(request.command).has_content = false);
            }),
            Action::FailOver { lost_commits } => self.fail_over(scenario, lost_commits),
        }
    }

    /// Executes a transaction. Returns the rides on which it stored events, or `None` if it was aborted.
    fn commit(&mut self, scenario: &Scenario, index: usize) -> (Run, Option<BTreeSet<Ride>>) {
        let Transaction { run, locks, .. } = self.transactions.remove(index);
        let mut after = self.database.clone();
        // The statement of the optimistic path skips topics that others have locked. On the locking path there are none.
        let locked = self.transactions.iter().flat_map(|other| &other.locks).copied().collect();
        let stored = after.append(run.number, &run.writes, &locked, scenario.rules.heads_compare_ids);
        if !locks.is_empty() {
            if scenario.rules.partial_append_aborts && stored.len() < run.rides().len() {
                return (run, None);
            }
            let created = run.writes.iter().filter(|write| write.request.kind == Kind::Created);
            created.for_each(|write| after.ride_mut(write.request.ride).row = Row::Open);
        }
        self.store(scenario, after);
        (run, Some(stored))
    }

    /// Counts a transaction of another replica, and returns the id of its event.
    fn other_id(&mut self) -> EventId {
        self.budget.others -= 1;
        EventId::Other(self.budget.others)
    }

    fn by_other_replica(&mut self, scenario: &Scenario, ride: Ride, change: impl FnOnce(&mut RideState, EventId)) {
        let id = self.other_id();
        let mut after = self.database.clone();
        change(after.ride_mut(ride), id);
        self.store(scenario, after);
    }

    fn by_retention(&mut self, scenario: &Scenario, change: impl FnOnce(&mut Database)) {
        self.budget.retention -= 1;
        let mut after = self.database.clone();
        change(&mut after);
        self.store(scenario, after);
    }

    fn store(&mut self, scenario: &Scenario, after: Database) {
        let before = std::mem::replace(&mut self.database, after);
        match scenario.standby {
            Standby::Asynchronous if self.budget.failovers > 0 => self.earlier.push(before),
            Standby::Asynchronous => {}
            Standby::Synchronous | Standby::SynchronousUnlessCancelled => self.wait_for_standby(),
        }
    }

    /// A commit waits until a synchronous standby has it and everything before.
    pub(crate) fn wait_for_standby(&mut self) {
        self.earlier.clear();
    }

    fn fail_over(&mut self, scenario: &Scenario, lost_commits: usize) {
        self.budget.failovers -= 1;
        let kept = self.earlier.len() - lost_commits;
        if let Some(before) = self.earlier.drain(..).nth(kept) {
            self.database = before;
        }
        self.earlier.clear();
        if let Some(index) = self.current() {
            self.on_connection_lost(self.transactions[index].run.clone());
        } else if self.writer.step == Step::TopicFound {
            self.writer.step = Step::Locking;
        }
        self.transactions.clear();
        for (effects, response) in self.database.effects.iter().zip(&mut self.responses) {
            if scenario.standby == Standby::Asynchronous && *response == Response::Stored && effects.stored == 0 {
                *response = Response::StoredAndLost;
            }
        }
    }
}
