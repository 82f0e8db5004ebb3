//! The permanent erasure of one user's messages and reactions.

use crate::domain::{EventType, MessageId, Result, RideId, UserId};
use crate::writer::commands::messages::erase_of_sender;
use crate::writer::commands::reactions::ReactionChanged;
use crate::writer::{BatchState, Command, ReadSet};

/// Erases a message of a user who is being erased. A tombstone remains.
#[derive(Debug)]
pub struct EraseMessage {
    /// The service that requests it.
    pub by: UserId,
    /// The ride of the message.
    pub ride: RideId,
    /// The message.
    pub message: MessageId,
}

impl Command for EraseMessage {
    type Output = ();

    fn read_set(&self, read_set: &mut ReadSet) {
        read_set.add_ride(&self.ride);
        read_set.messages.push(self.message);
    }

    fn apply(&self, state: &mut BatchState) -> Result<()> {
        // Retention may have deleted the message.
        let Ok(message) = state.message(self.message) else { return Ok(()) };
        let message = message.clone();
        erase_of_sender(state, message, &self.by)
    }
}

/// Removes from a message all reactions of a user who is being erased. The event does not contain them.
#[derive(Debug)]
pub struct EraseReactions {
    /// The user.
    pub user: UserId,
    /// The ride of the message.
    pub ride: RideId,
    /// The message.
    pub message: MessageId,
}

impl Command for EraseReactions {
    type Output = ();

    fn read_set(&self, read_set: &mut ReadSet) {
        read_set.add_ride(&self.ride);
        read_set.messages.push(self.message);
    }

    fn apply(&self, state: &mut BatchState) -> Result<()> {
        // Retention may have deleted the message.
        let Ok(message) = state.message(self.message) else { return Ok(()) };
        let mut message = message.clone();
        if !message.reactions.remove_all(&self.user) {
            return Ok(());
        }
        let at = state.now();
        state.append_ride_event(&self.ride, EventType::MessageReaction, None, |_| ReactionChanged {
            ride_id: &self.ride,
            message_id: self.message,
            user_id: &self.user,
            emoji: None,
            removed: true,
            at,
        })?;
        state.change_message(message);
        state.erase_reactions(self.message, self.user.clone());
        Ok(())
    }
}
