//! Reacting to a message, and taking that back.

use serde::Serialize;

use super::messages::visible_message;
use crate::domain::{Caller, Emoji, Error, EventType, MessageId, Result, RideId, RideRole, Time, UserId};
use crate::writer::{Command, Ledger, Needs};

/// Puts an emoji to a message, or takes it away.
#[derive(Debug)]
pub struct React {
    /// Who.
    pub caller: Caller,
    /// The ride the message is on.
    pub ride: RideId,
    /// Which message.
    pub message: MessageId,
    /// With what.
    pub emoji: Emoji,
    /// Whether it is taken away.
    pub removed: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reacted<'a> {
    pub(super) ride_id: &'a RideId,
    pub(super) message_id: MessageId,
    pub(super) user_id: &'a UserId,
    /// Of a user who was erased it is null: all of theirs are gone.
    pub(super) emoji: Option<&'static str>,
    pub(super) removed: bool,
    pub(super) at: Time,
}

impl Command for React {
    type Output = ();

    fn needs(&self, needs: &mut Needs) {
        needs.ride(&self.ride);
        needs.messages.push(self.message);
    }

    fn judge(&self, ledger: &mut Ledger) -> Result<()> {
        let mut message = visible_message(ledger, &self.ride, &self.caller, self.message)?.clone();
        let snapshot = ledger.ride(&self.ride)?;
        let role = snapshot.admit(&self.caller)?.role;
        if role == RideRole::System {
            return Err(Error::Forbidden("the platform itself does not react"));
        }
        if message.deleted_at.is_some() {
            return Err(Error::MessageDeleted);
        }
        snapshot.require_open_chat(role)?;
        let user = &self.caller.user;
        let moved = match self.removed {
            true => message.reactions.remove(self.emoji, user),
            false => message.reactions.add(self.emoji, user)?,
        };
        if !moved {
            return Ok(());
        }
        let at = ledger.now();
        ledger.append(&self.ride, EventType::MessageReaction, None, |_| Reacted {
            ride_id: &self.ride,
            message_id: self.message,
            user_id: user,
            emoji: Some(self.emoji.as_str()),
            removed: self.removed,
            at,
        })?;
        ledger.change_message(message);
        Ok(())
    }
}
