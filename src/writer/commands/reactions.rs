//! Adding and removing reactions.

use serde::Serialize;

use super::messages::visible_message;
use crate::domain::{Caller, Emoji, Error, EventType, MessageId, Result, RideId, RideRole, Time, UserId};
use crate::writer::{BatchState, Command, ReadSet};

/// Adds an emoji to a message, or removes it.
#[derive(Debug)]
pub struct React {
    /// The user who reacts.
    pub caller: Caller,
    /// The ride of the message.
    pub ride: RideId,
    /// The message.
    pub message: MessageId,
    /// The emoji.
    pub emoji: Emoji,
    /// Whether the emoji is removed.
    pub removed: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReactionChanged<'a> {
    pub(super) ride_id: &'a RideId,
    pub(super) message_id: MessageId,
    pub(super) user_id: &'a UserId,
    /// Null if the user was erased. Then all reactions of the user are removed.
    pub(super) emoji: Option<&'static str>,
    pub(super) removed: bool,
    pub(super) at: Time,
}

impl Command for React {
    type Output = ();

    fn read_set(&self, read_set: &mut ReadSet) {
        read_set.add_ride(&self.ride);
        read_set.messages.push(self.message);
    }

    fn apply(&self, state: &mut BatchState) -> Result<()> {
        let mut message = visible_message(state, &self.ride, &self.caller, self.message)?.clone();
        let snapshot = state.ride(&self.ride)?;
        let role = snapshot.require_access(&self.caller)?.role;
        if role == RideRole::System {
            return Err(Error::Forbidden("the `service` role cannot react"));
        }
        if message.deleted_at.is_some() {
            return Err(Error::MessageDeleted);
        }
        snapshot.require_open_chat(role)?;
        let user = &self.caller.user;
        let is_changed = match self.removed {
            true => message.reactions.remove(self.emoji, user),
            false => message.reactions.add(self.emoji, user)?,
        };
        if !is_changed {
            return Ok(());
        }
        let at = state.now();
        state.append_ride_event(&self.ride, EventType::MessageReaction, None, |_| ReactionChanged {
            ride_id: &self.ride,
            message_id: self.message,
            user_id: user,
            emoji: Some(self.emoji.as_str()),
            removed: self.removed,
            at,
        })?;
        state.change_message(message);
        Ok(())
    }
}
