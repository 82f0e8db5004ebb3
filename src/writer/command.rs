//! Commands: the trait that each implements, and the form in which they wait for their batch.

use std::collections::BTreeSet;
use std::fmt;

use tokio::sync::oneshot;

use super::BatchState;
use crate::domain::{ClientMessageId, Error, MessageId, Result, RideId, Seq, ShardId, TraceContext, UserId};

/// A request to change something. Everything that can be checked without the database has been checked.
pub trait Command: Send + 'static {
    /// The response after the commit.
    type Output: Send + 'static;

    /// Adds to `read_set` what must be locked and loaded to apply this command.
    ///
    /// A command adds one ride at most, so that a locked ride delays only the commands about it.
    fn read_set(&self, read_set: &mut ReadSet);

    /// Decides the command, and records its changes in `state`. If it returns an error, `state` is unchanged.
    ///
    /// May be called again on another state, if the transaction of the first was not committed.
    fn apply(&self, state: &mut BatchState) -> Result<Self::Output>;
}

/// The rides, messages and keys that a batch must load and lock.
#[derive(Debug, Default)]
pub struct ReadSet {
    /// Rides to lock and load. Unless `requires_lock` is set, the cached state of a ride is sufficient.
    pub(super) rides: BTreeSet<RideId>,
    pub(super) requires_lock: bool,
    /// Whether to wait for rides that another session has locked. Otherwise their commands are deferred.
    pub(super) waits: bool,
    /// The subset of `rides` that may have to be created.
    pub new_rides: BTreeSet<RideId>,
    /// Messages by id.
    pub messages: Vec<MessageId>,
    /// Messages by their sender's `clientMessageId`.
    pub client_message_ids: Vec<(RideId, UserId, ClientMessageId)>,
    /// The last messages of other users than this one, at or before a seq.
    pub last_of_others: Vec<(RideId, UserId, Seq)>,
    /// The shards whose outbox rows are applied, and the users and rides of these rows.
    pub(super) outboxes: BTreeSet<ShardId>,
    pub(super) outbox_rows: BTreeSet<(UserId, RideId)>,
}

impl ReadSet {
    /// Adds a ride that must be locked and loaded.
    pub fn add_ride(&mut self, ride: &RideId) {
        self.rides.insert(ride.clone());
        self.requires_lock = true;
    }

    /// Adds a ride of which only the chat's state matters: its participants' rights to write, and the head of its log.
    pub fn add_chat(&mut self, ride: &RideId) {
        self.rides.insert(ride.clone());
    }

    /// Adds rows of another shard's outbox.
    pub fn add_outbox_rows(&mut self, from: ShardId, rows: impl Iterator<Item = (UserId, RideId)>) {
        self.outboxes.insert(from);
        self.outbox_rows.extend(rows);
        self.requires_lock = true;
    }

    /// Returns the ride, if nothing but its chat's state must be read.
    ///
    /// `client_message_ids` need not be read for this: the unique index over them finds repeats.
    pub(super) fn only_chat_ride(&self) -> Option<&RideId> {
        let reads_more =
            self.requires_lock || self.rides.len() > 1 || !self.messages.is_empty() || !self.last_of_others.is_empty();
        self.rides.first().filter(|_| !reads_more)
    }
}

/// A command of any type, with its response channel.
pub(super) trait AnyCommand: Send + fmt::Debug {
    /// See [`Command::read_set`].
    fn read_set(&self, read_set: &mut ReadSet);

    /// Applies the command, and keeps the result. A later call replaces the result.
    fn apply(&mut self, state: &mut BatchState);

    /// Whether the result is `Ok`.
    fn is_accepted(&self) -> bool;

    /// Sends the result to the caller.
    fn respond(self: Box<Self>);

    /// Sends an error to the caller, in place of the result.
    fn fail(self: Box<Self>, error: Error);
}

struct PendingCommand<C: Command> {
    command: C,
    trace: Option<TraceContext>,
    result: Option<Result<C::Output>>,
    responder: oneshot::Sender<Result<C::Output>>,
}

/// Returns a command with its response channel, and the receiver of the response.
pub(super) fn pending<C: Command>(
    command: C,
    trace: Option<TraceContext>,
) -> (Box<dyn AnyCommand>, oneshot::Receiver<Result<C::Output>>) {
    let (responder, response) = oneshot::channel();
    (Box::new(PendingCommand { command, trace, result: None, responder }), response)
}

impl<C: Command> AnyCommand for PendingCommand<C> {
    fn read_set(&self, read_set: &mut ReadSet) {
        self.command.read_set(read_set);
    }

    fn apply(&mut self, state: &mut BatchState) {
        state.trace = self.trace;
        self.result = Some(self.command.apply(state));
    }

    fn is_accepted(&self) -> bool {
        matches!(self.result, Some(Ok(_)))
    }

    fn respond(self: Box<Self>) {
        // The caller may have gone.
        let _ = self.responder.send(self.result.unwrap_or(Err(Error::Internal)));
    }

    fn fail(self: Box<Self>, error: Error) {
        let _ = self.responder.send(Err(error));
    }
}

impl<C: Command> fmt::Debug for PendingCommand<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::any::type_name::<C>())
    }
}
