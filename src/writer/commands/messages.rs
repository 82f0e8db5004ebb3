//! Sending, editing and deleting messages.

use serde::Serialize;

use crate::domain::{
    Caller, ClientMessageId, Content, ContentHash, Error, EventType, Message, MessageId, Metadata, Reactions, Receipts,
    Result, RideId, RideRole, Seq, Time, UserId,
};
use crate::writer::{Command, Ledger, Needs};

/// Says something on a ride.
#[derive(Debug)]
pub struct SendMessage {
    /// Who.
    pub caller: Caller,
    /// Where.
    pub ride: RideId,
    /// What.
    pub content: Content,
    /// What the app attaches.
    pub metadata: Option<Metadata>,
    /// The sender's name for it: the same name is the same message.
    pub client_message_id: Option<ClientMessageId>,
}

/// A message as its sender is answered.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Its identifier.
    pub id: MessageId,
    /// Its number on the ride.
    pub seq: Seq,
    /// The message as JSON.
    pub json: String,
    /// Whether it is new, rather than a repeat of one already sent.
    pub created: bool,
}

impl Command for SendMessage {
    type Output = Sent;

    fn needs(&self, needs: &mut Needs) {
        needs.chat(&self.ride);
        if let Some(name) = &self.client_message_id {
            needs.sent.push((self.ride.clone(), self.caller.user.clone(), name.clone()));
        }
    }

    fn judge(&self, ledger: &mut Ledger) -> Result<Sent> {
        let snapshot = ledger.ride(&self.ride)?;
        let access = snapshot.admit(&self.caller)?;
        let content_hash = ContentHash::of(&self.content, self.metadata.as_ref());
        // Before the chat's state: a retry of what was acknowledged is answered alike after the chat has closed.
        if let Some(name) = &self.client_message_id
            && let Some(sent) = ledger.sent(&self.ride, &self.caller.user, name)
        {
            if sent.content_hash != content_hash {
                return Err(Error::IdempotencyConflict);
            }
            return Ok(Sent { id: sent.id, seq: sent.seq, json: sent.to_json(&snapshot.receipts), created: false });
        }
        snapshot.require_open_chat(access.role)?;
        let message = Message {
            id: MessageId::new(),
            ride: self.ride.clone(),
            seq: snapshot.head + 1,
            sender: self.caller.user.clone(),
            sender_role: access.role,
            content: Some(self.content.clone()),
            metadata: self.metadata.clone(),
            client_message_id: self.client_message_id.clone(),
            content_hash,
            reactions: Reactions::default(),
            created_at: ledger.now(),
            edited_at: None,
            deleted_at: None,
        };
        // Nobody can have received it yet.
        let nobody = Receipts::default();
        ledger.append(&self.ride, EventType::MessageNew, None, |_| message.view(&nobody))?;
        // The sender is answered what everybody is told: encoded once.
        let json = ledger.last_data()?.to_owned();
        let sent = Sent { id: message.id, seq: message.seq, json, created: true };
        ledger.add_message(message);
        Ok(sent)
    }
}

/// Changes what a message says.
#[derive(Debug)]
pub struct EditMessage {
    /// Who: only its sender may.
    pub caller: Caller,
    /// The ride it is on.
    pub ride: RideId,
    /// Which.
    pub message: MessageId,
    /// The new text; `None` leaves it.
    pub content: Option<Content>,
    /// The new metadata; `None` leaves it, `Some(None)` takes it away.
    pub metadata: Option<Option<Metadata>>,
}

impl Command for EditMessage {
    /// The message as JSON.
    type Output = String;

    fn needs(&self, needs: &mut Needs) {
        needs.ride(&self.ride);
        needs.messages.push(self.message);
    }

    fn judge(&self, ledger: &mut Ledger) -> Result<String> {
        let snapshot = ledger.ride(&self.ride)?;
        let mut message = visible_message(ledger, &self.ride, &self.caller, self.message)?.clone();
        if message.sender != self.caller.user {
            return Err(Error::Forbidden("only its sender can edit a message"));
        }
        if message.deleted_at.is_some() {
            return Err(Error::MessageDeleted);
        }
        snapshot.require_open_chat(snapshot.admit(&self.caller)?.role)?;
        let receipts = snapshot.receipts.clone();
        let before = message.clone();
        if let Some(content) = &self.content {
            message.content = Some(content.clone());
        }
        if let Some(metadata) = &self.metadata {
            message.metadata.clone_from(metadata);
        }
        if message != before {
            message.edited_at = Some(ledger.now());
            ledger.append(&self.ride, EventType::MessageEdited, Some(message.id), |_| message.view(&receipts))?;
            ledger.change_message(message.clone());
        }
        Ok(message.to_json(&receipts))
    }
}

/// Erases a message, everywhere.
#[derive(Debug)]
pub struct DeleteMessage {
    /// Who: its sender, or support.
    pub caller: Caller,
    /// The ride it is on.
    pub ride: RideId,
    /// Which.
    pub message: MessageId,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MessageDeleted<'a> {
    ride_id: &'a RideId,
    message_id: MessageId,
    seq: Seq,
    by: &'a UserId,
    at: Time,
}

impl Command for DeleteMessage {
    type Output = ();

    fn needs(&self, needs: &mut Needs) {
        needs.ride(&self.ride);
        needs.messages.push(self.message);
    }

    fn judge(&self, ledger: &mut Ledger) -> Result<()> {
        let role = ledger.ride(&self.ride)?.admit(&self.caller)?.role;
        let message = visible_message(ledger, &self.ride, &self.caller, self.message)?.clone();
        if message.sender != self.caller.user && role != RideRole::Support {
            return Err(Error::Forbidden("only its sender, or support, can delete a message"));
        }
        // Whether the chat is open does not matter: what somebody said stays theirs to take back.
        erase(ledger, message, &self.caller.user)
    }
}

/// Leaves a message's tombstone in its place.
pub(super) fn erase(ledger: &mut Ledger, mut message: Message, by: &UserId) -> Result<()> {
    if message.deleted_at.is_some() {
        return Ok(());
    }
    let at = ledger.now();
    message.erase(at);
    let (ride, message_id, seq) = (message.ride.clone(), message.id, message.seq);
    let deleted = MessageDeleted { ride_id: &ride, message_id, seq, by, at };
    ledger.append(&ride, EventType::MessageDeleted, None, |_| deleted)?;
    ledger.change_message(message);
    Ok(())
}

/// A message that lies in the part of the log that is the caller's.
pub(super) fn visible_message<'a>(
    ledger: &'a Ledger,
    ride: &RideId,
    caller: &Caller,
    message: MessageId,
) -> Result<&'a Message> {
    let snapshot = ledger.ride(ride)?;
    snapshot.admit(caller).map_err(|_| Error::MessageNotFound)?;
    let message = ledger.message(message)?;
    let visible = message.ride == *ride && snapshot.parts(caller).contains(message.seq);
    visible.then_some(message).ok_or(Error::MessageNotFound)
}
