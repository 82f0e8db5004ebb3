//! Erasing one person's messages, for good.

use crate::domain::{MessageId, Result, RideId, UserId};
use crate::writer::commands::messages::erase;
use crate::writer::{Command, Ledger, Needs};

/// Erases a message of somebody who is to be forgotten. What remains is its tombstone.
#[derive(Debug)]
pub struct EraseMessage {
    /// The service that asks for it.
    pub by: UserId,
    /// The ride it is on.
    pub ride: RideId,
    /// Which.
    pub message: MessageId,
}

impl Command for EraseMessage {
    type Output = ();

    fn needs(&self, needs: &mut Needs) {
        needs.ride(&self.ride);
        needs.messages.push(self.message);
    }

    fn judge(&self, ledger: &mut Ledger) -> Result<()> {
        // Retention may have been first.
        let Ok(message) = ledger.message(self.message) else { return Ok(()) };
        let message = message.clone();
        erase(ledger, message, &self.by)
    }
}
