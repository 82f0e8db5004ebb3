//! Erasing one user's messages and reactions, for good.

use crate::domain::{EventType, MessageId, Result, RideId, UserId};
use crate::writer::commands::messages::erase_of_sender;
use crate::writer::commands::reactions::Reacted;
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
        erase_of_sender(ledger, message, &self.by)
    }
}

/// Takes back all reactions of a user who is erased to a message. The event does not say which they were.
#[derive(Debug)]
pub struct EraseReactions {
    /// Whose.
    pub user: UserId,
    /// The ride the message is on.
    pub ride: RideId,
    /// Which message.
    pub message: MessageId,
}

impl Command for EraseReactions {
    type Output = ();

    fn needs(&self, needs: &mut Needs) {
        needs.ride(&self.ride);
        needs.messages.push(self.message);
    }

    fn judge(&self, ledger: &mut Ledger) -> Result<()> {
        // As above.
        let Ok(message) = ledger.message(self.message) else { return Ok(()) };
        let mut message = message.clone();
        if !message.reactions.remove_all(&self.user) {
            return Ok(());
        }
        let at = ledger.now();
        ledger.append(&self.ride, EventType::MessageReaction, None, |_| Reacted {
            ride_id: &self.ride,
            message_id: self.message,
            user_id: &self.user,
            emoji: None,
            removed: true,
            at,
        })?;
        ledger.change_message(message);
        ledger.erase_reactions(self.message, self.user.clone());
        Ok(())
    }
}
