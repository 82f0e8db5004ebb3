//! Sending, editing and deleting messages.

use serde::Serialize;

use crate::domain::{
    Caller, ClientMessageId, Content, ContentHash, Error, EventType, Message, MessageId, Metadata, Reactions, Receipts,
    Result, Review, RideId, RideRole, Seq, Time, UserId,
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
    /// Of the content and metadata.
    pub content_hash: ContentHash,
    /// What moderation says of it.
    pub review: Review,
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
        // Before the chat's state: a retry of what was acknowledged is answered alike after the chat has closed.
        if let Some(name) = &self.client_message_id
            && let Some(sent) = ledger.sent(&self.ride, &self.caller.user, name)
        {
            // With a message's content its hash was erased: of a deleted one the name decides alone.
            if sent.deleted_at.is_none() && !self.is_repeat_of(sent) {
                return Err(Error::IdempotencyConflict);
            }
            return Ok(Sent {
                id: sent.id,
                seq: sent.seq,
                json: sent.to_json_for(&self.caller, &snapshot.receipts),
                created: false,
            });
        }
        snapshot.require_open_chat(access.role)?;
        let (replacement, labels) = match &self.review {
            Review::NotNeeded => (None, None),
            Review::Missing => return Err(Error::Unavailable),
            Review::Passed { replacement, labels } => (replacement.clone(), labels.clone()),
            Review::Refused(error) => return Err(error.clone()),
        };
        let message = Message {
            id: MessageId::new(),
            ride: self.ride.clone(),
            seq: snapshot.head + 1,
            sender: self.caller.user.clone(),
            sender_role: access.role,
            content: Some(replacement.unwrap_or_else(|| self.content.clone())),
            metadata: self.metadata.clone(),
            client_message_id: self.client_message_id.clone(),
            // Of what was sent, also where something else is stored: a retry sends it again.
            content_hash: self.content_hash,
            labels,
            reactions: Reactions::default(),
            created_at: ledger.now(),
            edited_at: None,
            deleted_at: None,
        };
        // Nobody can have received it yet.
        let nobody = Receipts::default();
        ledger.append(&self.ride, EventType::MessageNew, None, |_| message.view(&nobody))?;
        // The sender is answered what everybody is told: encoded once. But for staff, who see labels.
        let is_seen = message.labels.is_some() && self.caller.role.is_staff();
        let json = if is_seen { message.to_json_for(&self.caller, &nobody) } else { ledger.last_data()?.to_owned() };
        let sent = Sent { id: message.id, seq: message.seq, json, created: true };
        ledger.add_message(message);
        ledger.flag_message(sent.id);
        Ok(sent)
    }
}

impl SendMessage {
    /// Whether the message was first sent with the same. Its hash may have been stored by a version that had no key for it.
    fn is_repeat_of(&self, sent: &Message) -> bool {
        sent.content_hash == self.content_hash
            || sent.content_hash == ContentHash::without_key(&self.content, self.metadata.as_ref())
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
    /// What moderation says of it.
    pub review: Review,
    /// The message that the edit was checked on.
    pub reviewed: Option<Message>,
}

/// What became of an edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edited {
    /// It is stored, or changes nothing: the message as JSON.
    Stored(String),
    /// It was not checked, or on another content than the message has now. Nothing is stored: it has to be checked again.
    Outdated,
}

impl EditMessage {
    /// The content and metadata that a message has after this edit, if any of that is new.
    pub fn change(&self, message: &Message) -> Option<(Option<Content>, Option<Metadata>)> {
        let content = self.content.clone().or_else(|| message.content.clone());
        let metadata = self.metadata.clone().unwrap_or_else(|| message.metadata.clone());
        let is_new = content != message.content || metadata != message.metadata;
        is_new.then_some((content, metadata))
    }
}

impl Command for EditMessage {
    type Output = Edited;

    fn needs(&self, needs: &mut Needs) {
        needs.ride(&self.ride);
        needs.messages.push(self.message);
    }

    fn judge(&self, ledger: &mut Ledger) -> Result<Edited> {
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
        let Some((content, metadata)) = self.change(&message) else {
            return Ok(Edited::Stored(message.to_json_for(&self.caller, &receipts)));
        };
        let before = message.clone();
        (message.content, message.metadata) = (content, metadata);
        match &self.review {
            Review::NotNeeded => {}
            Review::Missing => return Ok(Edited::Outdated),
            Review::Passed { replacement, labels } => {
                // What was checked is the whole message. Where it has changed since, that is not what would be stored.
                let is_same = |seen: &Message| seen.content == before.content && seen.metadata == before.metadata;
                if !self.reviewed.as_ref().is_some_and(is_same) {
                    return Ok(Edited::Outdated);
                }
                message.content = replacement.clone().or(message.content);
                message.labels.clone_from(labels);
            }
            Review::Refused(error) => return Err(error.clone()),
        }
        // A replacement may be what the message said before.
        if (&message.content, &message.metadata) == (&before.content, &before.metadata) {
            return Ok(Edited::Stored(before.to_json_for(&self.caller, &receipts)));
        }
        message.edited_at = Some(ledger.now());
        ledger.append(&self.ride, EventType::MessageEdited, Some(message.id), |_| message.view(&receipts))?;
        ledger.change_message(message.clone());
        if matches!(self.review, Review::Passed { labels: Some(_), .. }) {
            ledger.flag_message(message.id);
        }
        Ok(Edited::Stored(message.to_json_for(&self.caller, &receipts)))
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
fn erase(ledger: &mut Ledger, mut message: Message, by: &UserId) -> Result<()> {
    if message.deleted_at.is_some() {
        return Ok(());
    }
    message.erase(ledger.now());
    replace_by_tombstone(ledger, message, by)
}

/// The same for a sender who is erased: nor does their own name for the message stay. One that they had deleted themselves is deleted
/// once more: so each replica drops from memory what it has of the log before.
pub(super) fn erase_of_sender(ledger: &mut Ledger, mut message: Message, by: &UserId) -> Result<()> {
    if message.deleted_at.is_some() && message.client_message_id.is_none() {
        return Ok(());
    }
    message.client_message_id = None;
    if message.deleted_at.is_none() {
        message.erase(ledger.now());
    }
    replace_by_tombstone(ledger, message, by)
}

fn replace_by_tombstone(ledger: &mut Ledger, message: Message, by: &UserId) -> Result<()> {
    let at = ledger.now();
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
