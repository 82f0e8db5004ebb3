//! Messages.

use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    Caller, Content, ContentHash, Labels, MessageId, Metadata, ReactionView, Reactions, Receipts, RideId, RideRole,
    Seq, Time, UserId,
};

/// The sender's id for a message. It distinguishes a retry from a second message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientMessageId(String);

impl ClientMessageId {
    /// Accepts 1 to 128 printable characters.
    pub fn parse(text: String) -> Result<Self, &'static str> {
        if text.is_empty() || text.chars().take(129).count() > 128 || text.chars().any(char::is_control) {
            return Err("must be 1 to 128 printable characters");
        }
        Ok(Self(text))
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The current state of a message. A deleted message has neither content nor metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The message's id.
    pub id: MessageId,
    /// The ride.
    pub ride: RideId,
    /// The seq of the message's `message:new` event.
    pub seq: Seq,
    /// The sender.
    pub sender: UserId,
    /// The sender's role on the ride.
    pub sender_role: RideRole,
    /// The text. `None` after a deletion.
    pub content: Option<Content>,
    /// The metadata. `None` after a deletion.
    pub metadata: Option<Metadata>,
    /// The sender's id for the message. `None` after the sender is erased.
    pub client_message_id: Option<ClientMessageId>,
    /// The hash of the original content.
    pub content_hash: ContentHash,
    /// The labels of the last moderation check, where it flagged the message. Only staff receive them.
    pub labels: Option<Labels>,
    /// The reactions.
    pub reactions: Reactions,
    /// When the message was committed.
    pub created_at: Time,
    /// When the message was last edited.
    pub edited_at: Option<Time>,
    /// When the message was deleted.
    pub deleted_at: Option<Time>,
}

impl Message {
    /// Erases the content, metadata, labels and reactions. The tombstone keeps the sender, the ride and the times.
    pub fn erase(&mut self, now: Time) {
        self.content = None;
        self.metadata = None;
        self.labels = None;
        self.reactions = Reactions::default();
        self.deleted_at = Some(now);
    }

    /// Returns the JSON form for a caller.
    pub fn to_json_for(&self, caller: &Caller, receipts: &Receipts) -> String {
        serde_json::to_string(&self.view_for(caller, receipts)).unwrap_or_default()
    }

    /// Returns the JSON form for all readers, in one line. `receipts` determine `isDelivered` and `isRead`.
    pub fn to_json(&self, receipts: &Receipts) -> String {
        serde_json::to_string(&self.view(receipts)).unwrap_or_default()
    }

    /// Returns the serializable form for a caller. Only staff receive the labels.
    pub fn view_for<'a>(&'a self, caller: &Caller, receipts: &Receipts) -> MessageView<'a> {
        let labels = self.labels.as_ref().filter(|_| caller.role.is_staff()).map(Labels::as_slice);
        MessageView { labels, ..self.view(receipts) }
    }

    /// Returns the serializable form for all readers.
    pub fn view<'a>(&'a self, receipts: &Receipts) -> MessageView<'a> {
        let (delivered, read) = receipts.reached_by_others(&self.sender);
        MessageView {
            id: self.id,
            ride_id: &self.ride,
            seq: self.seq,
            sender_id: &self.sender,
            sender_role: self.sender_role,
            content: self.content.as_ref().map(Content::as_str),
            metadata: self.metadata.as_ref().map(Metadata::as_raw),
            client_message_id: self.client_message_id.as_ref().map(ClientMessageId::as_str),
            created_at: self.created_at,
            edited_at: self.edited_at,
            deleted_at: self.deleted_at,
            labels: None,
            reactions: self.reactions.view(),
            is_delivered: self.seq <= delivered,
            is_read: self.seq <= read,
        }
    }
}

/// The JSON form of a [`Message`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageView<'a> {
    id: MessageId,
    ride_id: &'a RideId,
    seq: Seq,
    sender_id: &'a UserId,
    sender_role: RideRole,
    content: Option<&'a str>,
    metadata: Option<&'a RawValue>,
    client_message_id: Option<&'a str>,
    created_at: Time,
    edited_at: Option<Time>,
    deleted_at: Option<Time>,
    labels: Option<&'a [String]>,
    reactions: Vec<ReactionView<'a>>,
    is_delivered: bool,
    is_read: bool,
}
