//! Sending, editing and deleting messages.

use serde::Serialize;

use crate::domain::{
    Caller, ClientMessageId, Content, ContentHash, Error, EventType, Message, MessageId, Metadata, Reactions, Receipts,
    Result, Review, RideId, RideRole, Seq, Time, UserId,
};
use crate::writer::{BatchState, Command, ReadSet};

/// Sends a message to a ride.
#[derive(Debug)]
pub struct SendMessage {
    /// The sender.
    pub caller: Caller,
    /// The ride.
    pub ride: RideId,
    /// The message's content.
    pub content: Content,
    /// Data that the app attaches to the message.
    pub metadata: Option<Metadata>,
    /// The idempotency key. A second send with the same key returns the same message.
    pub client_message_id: Option<ClientMessageId>,
    /// The hash of the content and metadata.
    pub content_hash: ContentHash,
    /// The result of moderation.
    pub review: Review,
}

/// The response to the sender of a message.
#[derive(Debug, Clone)]
pub struct Sent {
    /// The message's id.
    pub id: MessageId,
    /// The seq of its `message:new` event.
    pub seq: Seq,
    /// The message as JSON.
    pub json: String,
    /// Whether the message is new, rather than a repeat of an earlier send.
    pub created: bool,
}

impl Command for SendMessage {
    type Output = Sent;

    fn read_set(&self, read_set: &mut ReadSet) {
        read_set.add_chat(&self.ride);
        if let Some(client_id) = &self.client_message_id {
            read_set.client_message_ids.push((self.ride.clone(), self.caller.user.clone(), client_id.clone()));
        }
    }

    fn apply(&self, state: &mut BatchState) -> Result<Sent> {
        let snapshot = state.ride(&self.ride)?;
        let access = snapshot.require_access(&self.caller)?;
        // Duplicates are checked before the chat's state: the retry of an acknowledged send gets the same response after the chat has
        // closed.
        if let Some(client_id) = &self.client_message_id
            && let Some(sent) = state.message_by_client_id(&self.ride, &self.caller.user, client_id)
        {
            // A deletion erases the hash together with the content. For a deleted message, only the `clientMessageId` is compared.
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
            Review::NotChecked => return Err(Error::Unavailable),
            Review::Passed { replacement, labels } => (replacement.clone(), labels.clone()),
            Review::Rejected(error) => return Err(error.clone()),
        };
        let message = Message {
            id: state.new_message_id(),
            ride: self.ride.clone(),
            seq: snapshot.head + 1,
            sender: self.caller.user.clone(),
            sender_role: access.role,
            content: Some(replacement.unwrap_or_else(|| self.content.clone())),
            metadata: self.metadata.clone(),
            client_message_id: self.client_message_id.clone(),
            // The hash covers the sent content, even if moderation replaces it, because a retry sends the same content again.
            content_hash: self.content_hash,
            labels,
            reactions: Reactions::default(),
            created_at: state.now(),
            edited_at: None,
            deleted_at: None,
        };
        // No participant can have received the message yet.
        let no_receipts = Receipts::default();
        state.append_ride_event(&self.ride, EventType::MessageNew, None, |_| message.view(&no_receipts))?;
        // The response contains the same bytes as the event, which are encoded once. Staff get their own encoding, because they see labels.
        let sees_labels = message.labels.is_some() && self.caller.role.is_staff();
        let json = if sees_labels {
            message.to_json_for(&self.caller, &no_receipts)
        } else {
            state.last_event_data()?.to_owned()
        };
        let sent = Sent { id: message.id, seq: message.seq, json, created: true };
        state.add_message(message);
        state.flag_message(sent.id);
        Ok(sent)
    }
}

impl SendMessage {
    /// Whether the message was first sent with the same content and metadata. An older version may have stored a hash without a key.
    fn is_repeat_of(&self, sent: &Message) -> bool {
        sent.content_hash == self.content_hash
            || sent.content_hash == ContentHash::without_key(&self.content, self.metadata.as_ref())
    }
}

/// Changes the content or metadata of a message.
#[derive(Debug)]
pub struct EditMessage {
    /// The editor. Only the sender may edit a message.
    pub caller: Caller,
    /// The ride of the message.
    pub ride: RideId,
    /// The message.
    pub message: MessageId,
    /// The new content. `None` keeps the old one.
    pub content: Option<Content>,
    /// The new metadata. `None` keeps the old one, `Some(None)` removes it.
    pub metadata: Option<Option<Metadata>>,
    /// The result of moderation.
    pub review: Review,
    /// The message as it was when moderation checked the edit.
    pub reviewed: Option<Message>,
}

/// The result of an edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edited {
    /// The edit is stored, or changes nothing. Contains the message as JSON.
    Stored(String),
    /// Nothing is stored: the edit was not checked, or the message has changed since the check. The edit must be checked again.
    Outdated,
}

impl EditMessage {
    /// Returns the content and metadata of a message after this edit, or `None` if the edit changes nothing.
    pub fn change(&self, message: &Message) -> Option<(Option<Content>, Option<Metadata>)> {
        let content = self.content.clone().or_else(|| message.content.clone());
        let metadata = self.metadata.clone().unwrap_or_else(|| message.metadata.clone());
        let is_new = content != message.content || metadata != message.metadata;
        is_new.then_some((content, metadata))
    }
}

impl Command for EditMessage {
    type Output = Edited;

    fn read_set(&self, read_set: &mut ReadSet) {
        read_set.add_ride(&self.ride);
        read_set.messages.push(self.message);
    }

    fn apply(&self, state: &mut BatchState) -> Result<Edited> {
        let snapshot = state.ride(&self.ride)?;
        let mut message = visible_message(state, &self.ride, &self.caller, self.message)?.clone();
        if message.sender != self.caller.user {
            return Err(Error::Forbidden("only the sender can edit a message"));
        }
        if message.deleted_at.is_some() {
            return Err(Error::MessageDeleted);
        }
        snapshot.require_open_chat(snapshot.require_access(&self.caller)?.role)?;
        let receipts = snapshot.receipts.clone();
        let Some((content, metadata)) = self.change(&message) else {
            return Ok(Edited::Stored(message.to_json_for(&self.caller, &receipts)));
        };
        let before = message.clone();
        (message.content, message.metadata) = (content, metadata);
        match &self.review {
            Review::NotNeeded => {}
            Review::NotChecked => return Ok(Edited::Outdated),
            Review::Passed { replacement, labels } => {
                // Moderation checks the whole message. If the message has changed since, the result does not apply to what would be stored.
                let is_same = |seen: &Message| seen.content == before.content && seen.metadata == before.metadata;
                if !self.reviewed.as_ref().is_some_and(is_same) {
                    return Ok(Edited::Outdated);
                }
                message.content = replacement.clone().or(message.content);
                message.labels.clone_from(labels);
            }
            Review::Rejected(error) => return Err(error.clone()),
        }
        // A replacement by moderation may equal the old content.
        if (&message.content, &message.metadata) == (&before.content, &before.metadata) {
            return Ok(Edited::Stored(before.to_json_for(&self.caller, &receipts)));
        }
        message.edited_at = Some(state.now());
        state.append_ride_event(&self.ride, EventType::MessageEdited, Some(message.id), |_| message.view(&receipts))?;
        state.change_message(message.clone());
        if matches!(self.review, Review::Passed { labels: Some(_), .. }) {
            state.flag_message(message.id);
        }
        Ok(Edited::Stored(message.to_json_for(&self.caller, &receipts)))
    }
}

/// Deletes a message, and erases its content everywhere.
#[derive(Debug)]
pub struct DeleteMessage {
    /// The message's sender, or support.
    pub caller: Caller,
    /// The ride of the message.
    pub ride: RideId,
    /// The message.
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

    fn read_set(&self, read_set: &mut ReadSet) {
        read_set.add_ride(&self.ride);
        read_set.messages.push(self.message);
    }

    fn apply(&self, state: &mut BatchState) -> Result<()> {
        let role = state.ride(&self.ride)?.require_access(&self.caller)?.role;
        let message = visible_message(state, &self.ride, &self.caller, self.message)?.clone();
        if message.sender != self.caller.user && role != RideRole::Support {
            return Err(Error::Forbidden("only the sender or support can delete a message"));
        }
        // A sender may delete their messages even if the chat is not open.
        erase(state, message, &self.caller.user)
    }
}

/// Replaces a message by its tombstone.
fn erase(state: &mut BatchState, mut message: Message, by: &UserId) -> Result<()> {
    if message.deleted_at.is_some() {
        return Ok(());
    }
    message.erase(state.now());
    replace_by_tombstone(state, message, by)
}

/// Replaces a message of an erased sender by its tombstone, without its `clientMessageId`.
///
/// A message that its sender had deleted gets another `message:deleted` event. It makes each replica drop the log before it from
/// memory.
pub(super) fn erase_of_sender(state: &mut BatchState, mut message: Message, by: &UserId) -> Result<()> {
    if message.deleted_at.is_some() && message.client_message_id.is_none() {
        return Ok(());
    }
    message.client_message_id = None;
    if message.deleted_at.is_none() {
        message.erase(state.now());
    }
    replace_by_tombstone(state, message, by)
}

fn replace_by_tombstone(state: &mut BatchState, message: Message, by: &UserId) -> Result<()> {
    let at = state.now();
    let (ride, message_id, seq) = (message.ride.clone(), message.id, message.seq);
    let deleted = MessageDeleted { ride_id: &ride, message_id, seq, by, at };
    state.append_ride_event(&ride, EventType::MessageDeleted, None, |_| deleted)?;
    state.change_message(message);
    Ok(())
}

/// Returns a message, if it is in a part of the log that the caller may see.
pub(super) fn visible_message<'a>(
    state: &'a BatchState,
    ride: &RideId,
    caller: &Caller,
    message: MessageId,
) -> Result<&'a Message> {
    let snapshot = state.ride(ride)?;
    snapshot.require_access(caller).map_err(|_| Error::MessageNotFound)?;
    let message = state.message(message)?;
    let is_visible = message.ride == *ride && snapshot.access_intervals(caller).contains(message.seq);
    is_visible.then_some(message).ok_or(Error::MessageNotFound)
}
