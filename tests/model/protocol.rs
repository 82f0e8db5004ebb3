//! The rules of the batch protocol, and what surrounds it. Each rule can be switched off, so that the checker shows what it
//! is for.

use std::collections::BTreeSet;

use crate::database::{Command, Database, Kind, NO_MESSAGE, Request, Ride, Row};

/// The rules of the protocol: what the writer concludes from what it sees, and in which transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// An event proves its commit by who wrote it. Without this rule it must also have its data, which an erasure replaces.
    pub(crate) identity_is_evidence: bool,
    /// On the locking path a transaction stores all or nothing, so one event found proves the commit. Without this rule all
    /// of them must be found.
    pub(crate) any_event_proves: bool,
    /// An event that is missing proves nothing where retention may have deleted it: the log's head has reached its position,
    /// and the position is empty, or the log is gone. Without this rule a missing event was not stored.
    pub(crate) absence_is_no_proof: bool,
    /// The in-doubt check and the second run are one transaction. Without this rule the check releases its locks first.
    pub(crate) check_and_run_are_one: bool,
    /// A run is stored where a log still ends with the same event. Without this rule it need only end at the same seq, which
    /// is also true of a database that has lost its last commits and received others.
    pub(crate) heads_have_ids: bool,
    /// On the locking path an append that finds a head moved aborts the transaction. Without this rule it is committed.
    pub(crate) partial_append_aborts: bool,
    /// What a check finds is acknowledged after a commit of its own, which waits until the standby has all that was committed
    /// before. Without this rule it is acknowledged at once.
    pub(crate) check_waits_for_standby: bool,
}

impl Rules {
    /// The protocol as it was.
    pub(crate) const AS_IT_WAS: Self = Self {
        identity_is_evidence: false,
        any_event_proves: false,
        absence_is_no_proof: false,
        check_and_run_are_one: false,
        heads_have_ids: false,
        partial_append_aborts: false,
        check_waits_for_standby: false,
    };

    /// The protocol as it is.
    pub(crate) const AS_IT_IS: Self = Self {
        identity_is_evidence: true,
        any_event_proves: true,
        absence_is_no_proof: true,
        check_and_run_are_one: true,
        heads_have_ids: true,
        partial_append_aborts: true,
        check_waits_for_standby: true,
    };
}

/// What a failover may lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standby {
    /// Nothing: a commit is seen by nobody before the standby has it.
    Synchronous,
    /// The same, unless the wait for the standby is cancelled: then a commit can be seen that the standby does not have.
    SynchronousUnlessCancelled,
    /// The last commits, acknowledged or not.
    Asynchronous,
}

/// A send of a message.
pub(crate) const fn send(command: Command, ride: Ride) -> Request {
    Request { command, ride, kind: Kind::Message, message: command }
}

/// An edit of the message that another command has sent.
pub(crate) const fn edit(command: Command, message: Command, ride: Ride) -> Request {
    Request { command, ride, kind: Kind::Edited, message }
}

/// A deletion of the message that another command has sent.
pub(crate) const fn delete(command: Command, message: Command, ride: Ride) -> Request {
    Request { command, ride, kind: Kind::Deleted, message }
}

/// The PUT of a ride.
pub(crate) const fn put(command: Command, ride: Ride) -> Request {
    Request { command, ride, kind: Kind::Created, message: NO_MESSAGE }
}

/// How often something may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    /// Connections lost.
    pub(crate) losses: u8,
    /// Failovers.
    pub(crate) failovers: u8,
    /// Transactions of other replicas.
    pub(crate) others: u8,
    /// Transactions of retention.
    pub(crate) retention: u8,
}

/// One replica's batches, and what may happen to them.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) rules: Rules,
    pub(crate) standby: Standby,
    /// Batches of one replica, one after the other.
    pub(crate) batches: Vec<Vec<Request>>,
    /// How the rides are in the beginning.
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

    /// Whether the writer has stored something on a ride.
    pub(crate) fn is_stored(&self, database: &Database, ride: Ride) -> bool {
        self.requests().any(|request| request.ride == ride && database.trace(request.command).stored > 0)
    }

    pub(crate) fn rides(&self, commands: &[Command]) -> BTreeSet<Ride> {
        commands.iter().map(|command| self.request(*command).ride).collect()
    }
}
