//! What a command is, and how it waits for its answer.

use std::collections::BTreeSet;
use std::fmt;

use tokio::sync::oneshot;

use super::Ledger;
use crate::domain::{ClientMessageId, Error, MessageId, Result, RideId, Seq, TraceContext, UserId};

/// A wish to change something, complete: all that can be known without the database has been checked.
pub trait Command: Send + 'static {
    /// What is answered once it is committed.
    type Output: Send + 'static;

    /// Says what has to be locked and loaded to judge this: one ride at most, so that a ride which is locked delays what is
    /// about it alone.
    fn needs(&self, needs: &mut Needs);

    /// Decides, and writes what follows into the ledger; or refuses, and leaves the ledger as it was. May be
    /// called again on another ledger, when the transaction of the first came to nothing.
    fn judge(&self, ledger: &mut Ledger) -> Result<Self::Output>;
}

/// What a batch needs from the database.
#[derive(Debug, Default)]
pub struct Needs {
    /// Rides, locked and loaded; or known, if for all of them that will do.
    pub(super) rides: BTreeSet<RideId>,
    pub(super) is_strict: bool,
    /// Whether to wait for rides that somebody else has locked, rather than to leave them out.
    pub(super) waits: bool,
    /// Those of them that may have to be created.
    pub new_rides: BTreeSet<RideId>,
    /// Messages by id.
    pub messages: Vec<MessageId>,
    /// Messages that a sender has named so before.
    pub sent: Vec<(RideId, UserId, ClientMessageId)>,
    /// The last message of somebody else than the user, at or before a seq.
    pub last_of_others: Vec<(RideId, UserId, Seq)>,
}

impl Needs {
    /// A ride, locked and loaded.
    pub fn ride(&mut self, ride: &RideId) {
        self.rides.insert(ride.clone());
        self.is_strict = true;
    }

    /// A ride of which no more matters than who may speak there, and where its log ends.
    pub fn chat(&mut self, ride: &RideId) {
        self.rides.insert(ride.clone());
    }

    /// The ride whose chat is all that matters, if one's is. Whether a message was sent before need not be asked: that the
    /// index of names finds.
    pub(super) fn only_chat(&self) -> Option<&RideId> {
        let asks =
            self.is_strict || self.rides.len() > 1 || !self.messages.is_empty() || !self.last_of_others.is_empty();
        self.rides.first().filter(|_| !asks)
    }
}

/// A command of any kind, on its way.
pub(super) trait Job: Send + fmt::Debug {
    /// See [`Command::needs`].
    fn needs(&self, needs: &mut Needs);

    /// Judges, and keeps the verdict.
    fn judge(&mut self, ledger: &mut Ledger);

    /// Whether the verdict is one of success.
    fn is_accepted(&self) -> bool;

    /// Sends the verdict, which is final now.
    fn answer(self: Box<Self>);

    /// Sends a failure in place of the verdict.
    fn fail(self: Box<Self>, error: Error);
}

struct Waiting<C: Command> {
    command: C,
    trace: Option<TraceContext>,
    verdict: Option<Result<C::Output>>,
    asker: oneshot::Sender<Result<C::Output>>,
}

/// A job, and where its answer will come.
pub(super) fn job<C: Command>(
    command: C,
    trace: Option<TraceContext>,
) -> (Box<dyn Job>, oneshot::Receiver<Result<C::Output>>) {
    let (asker, answer) = oneshot::channel();
    (Box::new(Waiting { command, trace, verdict: None, asker }), answer)
}

impl<C: Command> Job for Waiting<C> {
    fn needs(&self, needs: &mut Needs) {
        self.command.needs(needs);
    }

    fn judge(&mut self, ledger: &mut Ledger) {
        ledger.trace = self.trace;
        self.verdict = Some(self.command.judge(ledger));
    }

    fn is_accepted(&self) -> bool {
        matches!(self.verdict, Some(Ok(_)))
    }

    fn answer(self: Box<Self>) {
        // Whoever asked may have gone.
        let _ = self.asker.send(self.verdict.unwrap_or(Err(Error::Internal)));
    }

    fn fail(self: Box<Self>, error: Error) {
        let _ = self.asker.send(Err(error));
    }
}

impl<C: Command> fmt::Debug for Waiting<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::any::type_name::<C>())
    }
}
