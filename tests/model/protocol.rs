//! The rules of the batch protocol, and the scenarios. Each rule can be switched off, so that the checker shows what it is for.

use std::collections::BTreeSet;

use crate::database::{Command, Database, Kind, NO_MESSAGE, Request, Ride, Row};

/// The rules of the protocol: what the writer concludes from a log, and in which transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// An event proves its commit by the batch that wrote it. Without this rule, its data is compared too, which an erasure replaces.
    pub(crate) batch_id_proves_commit: bool,
    /// On the locking path a transaction stores all or nothing, so one event proves the commit. Without this rule, all of them must be
    /// found.
    pub(crate) any_event_proves_commit: bool,
    /// If retention may have deleted an event, its absence proves nothing: the head has reached its seq and the event is missing, or the
    /// log is gone. Without this rule, a missing event was not stored.
    pub(crate) missing_event_may_be_trimmed: bool,
    /// The in-doubt check and the second run are one transaction. Without this rule, the check releases its locks first.
    pub(crate) check_and_run_share_transaction: bool,
    /// A run is stored only if the log still ends with the same event. Without this rule, it must only end at the same seq. That is also
    /// true of a database that has lost its last commits and received others.
    pub(crate) heads_compare_ids: bool,
    /// On the locking path, an append that finds a changed head aborts the transaction. Without this rule, the transaction commits.
    pub(crate) partial_append_aborts: bool,
    /// A commit that a check finds is acknowledged only after a commit of the check itself, which waits until the standby has everything
    /// before. Without this rule, it is acknowledged at once.
    pub(crate) check_waits_for_standby: bool,
}

impl Rules {
    /// The protocol in its first version.
    pub(crate) const ORIGINAL: Self = Self {
        batch_id_proves_commit: false,
        any_event_proves_commit: false,
        missing_event_may_be_trimmed: false,
        check_and_run_share_transaction: false,
        heads_compare_ids: false,
        partial_append_aborts: false,
        check_waits_for_standby: false,
    };

    /// The current protocol.
    pub(crate) const CURRENT: Self = Self {
        batch_id_proves_commit: true,
        any_event_proves_commit: true,
        missing_event_may_be_trimmed: true,
        check_and_run_share_transaction: true,
        heads_compare_ids: true,
        partial_append_aborts: true,
        check_waits_for_standby: true,
    };
}

/// What a failover may lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standby {
    /// Nothing: a commit is not visible before the standby has it.
    Synchronous,
    /// Nothing, unless the wait for the standby is cancelled. Then a commit is visible that the standby does not have.
    SynchronousUnlessCancelled,
    /// The last commits, acknowledged or not.
    Asynchronous,
}

/// A send of a message.
pub(crate) const fn send(command: Command, ride: Ride) -> Request {
    Request { command, ride, kind: Kind::Message, message: command }
}

/// An edit of the message of another command.
pub(crate) const fn edit(command: Command, message: Command, ride: Ride) -> Request {
    Request { command, ride, kind: Kind::Edited, message }
}

/// A deletion of the message of another command.
pub(crate) const fn delete(command: Command, message: Command, ride: Ride) -> Request {
    Request { command, ride, kind: Kind::Deleted, message }
}

/// The PUT of a ride.
pub(crate) const fn put(command: Command, ride: Ride) -> Request {
    Request { command, ride, kind: Kind::Created, message: NO_MESSAGE }
}

/// How often each fault and each foreign transaction may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    /// Lost connections.
    pub(crate) losses: u8,
    /// Failovers.
    pub(crate) failovers: u8,
    /// Transactions of other replicas.
    pub(crate) others: u8,
    /// Transactions of retention.
    pub(crate) retention: u8,
}

/// The batches of one replica, and what may happen to them.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) rules: Rules,
    pub(crate) standby: Standby,
    /// Batches of one replica, one after the other.
    pub(crate) batches: Vec<Vec<Request>>,
    /// The initial state of the rides.
    pub(crate) rows: [Row; 2],
    pub(crate) budget: Budget,
}

impl Scenario {
    pub(crate) fn request(&self, command: Command) -> Request {
        self.requests().find(|request| request.command == command).expect("a command of the scenario")
    }

    pub(crate) fn requests(&self) -> impl Iterator<Item = Request> {
        self.batches.iter().flatten().copied()
    }

    /// Whether the writer has stored an event on a ride.
    pub(crate) fn is_stored(&self, database: &Database, ride: Ride) -> bool {
        self.requests().any(|request| request.ride == ride && database.effects(request.command).stored > 0)
    }

    pub(crate) fn rides(&self, commands: &[Command]) -> BTreeSet<Ride> {
        commands.iter().map(|command| self.request(*command).ride).collect()
    }
}
