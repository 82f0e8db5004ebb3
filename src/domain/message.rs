//! Messages, and what their senders may put into them.

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{
    Caller, ContentHash, Labels, MessageId, ReactionView, Reactions, Receipts, RideId, RideRole, Seq, Time, UserId,
};

/// The text of a message, byte for byte as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content(String);

impl Content {
    /// The most Unicode scalar values a message may have, white space around it not counted.
    pub const MAX_CHARS: usize = 4_000;
    /// The most bytes, white space included.
    pub const MAX_BYTES: usize = 16 * 1024;

    /// Takes 1 to [`Self::MAX_CHARS`] Unicode scalar values after trimming, at most [`Self::MAX_BYTES`] in all, without
    /// U+0000, which Postgres cannot store. The text itself is not trimmed.
    pub fn parse(text: String) -> Result<Self, &'static str> {
        if text.contains('\0') {
            return Err("must not contain U+0000");
        }
        if text.len() > Self::MAX_BYTES {
            return Err("must be at most 16 KiB, white space included");
        }
        match text.trim().chars().take(Self::MAX_CHARS + 1).count() {
            0 => Err("must not be empty"),
            length if length > Self::MAX_CHARS => Err("must be at most 4000 characters long"),
            _ => Ok(Self(text)),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What an app attaches to a message, or says in a notice: a JSON object, kept in one line of compact JSON.
#[derive(Debug, Clone)]
pub struct Metadata(Box<RawValue>);

impl Metadata {
    /// The most bytes of compact JSON.
    pub const MAX_BYTES: usize = 8 * 1024;
    /// The deepest nesting; the object itself is the first level.
    pub const MAX_DEPTH: usize = 32;

    /// Takes an object of at most 8 KiB, 32 levels deep, without U+0000 in any key or string. An integer that 64 bits cannot
    /// hold would come back as another number, so it is rejected. A number is compared as it is written: `13` is not `13.0`.
    pub fn parse(json: &RawValue) -> Result<Self, &'static str> {
        let object: Map<String, Value> = serde_json::from_str(json.get()).map_err(|_| "must be a JSON object")?;
        if !integers(json.get()).all(|digits| digits.parse::<i64>().is_ok() || digits.parse::<u64>().is_ok()) {
            return Err("must not have integers beyond 64 bits; send them as strings");
        }
        let value = Value::Object(object);
        if deeper_than(&value, Self::MAX_DEPTH) {
            return Err("must be nested at most 32 levels deep");
        }
        if has_nul(&value) {
            return Err("must not contain U+0000");
        }
        let raw = serde_json::value::to_raw_value(&value).map_err(|_| "must be a JSON object")?;
        if raw.get().len() > Self::MAX_BYTES { Err("must be at most 8 KiB of JSON") } else { Ok(Self(raw)) }
    }

    /// Metadata as the database keeps it; `None` where that is not JSON, which only a hand in the database does.
    pub fn from_stored(json: String) -> Option<Self> {
        RawValue::from_string(json).ok().map(Self)
    }

    /// The object.
    pub fn as_raw(&self) -> &RawValue {
        &self.0
    }

    /// Compact JSON, keys sorted.
    pub fn as_json(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        self.as_json() == other.as_json()
    }
}

impl Eq for Metadata {}

/// The integers in a JSON text, as they are written: numbers without a fraction and an exponent, outside of strings.
fn integers(json: &str) -> impl Iterator<Item = &str> {
    let mut in_string = false;
    let mut escaped = false;
    let mut is_outside = move |c: char| {
        let was_outside = !in_string;
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            _ => {}
        }
        was_outside
    };
    let tokens = json.split(move |c: char| {
        let is_number = matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E');
        !(is_outside(c) && is_number)
    });
    tokens.filter(|token| {
        let digits = token.strip_prefix('-').unwrap_or(token);
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

fn deeper_than(value: &Value, levels: usize) -> bool {
    let Some(inner) = levels.checked_sub(1) else { return value.is_object() || value.is_array() };
    match value {
        Value::Object(members) => members.values().any(|member| deeper_than(member, inner)),
        Value::Array(items) => items.iter().any(|item| deeper_than(item, inner)),
        _ => false,
    }
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(members) => members.iter().any(|(key, member)| key.contains('\0') || has_nul(member)),
        _ => false,
    }
}

/// A sender's own name for a message, by which a retry is told from a second message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientMessageId(String);

impl ClientMessageId {
    /// Takes 1 to 128 printable characters.
    pub fn parse(text: String) -> Result<Self, &'static str> {
        if text.is_empty() || text.chars().take(129).count() > 128 || text.chars().any(char::is_control) {
            return Err("must be 1 to 128 printable characters");
        }
        Ok(Self(text))
    }

    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A message as it is now. A deleted one has neither content nor metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its identifier.
    pub id: MessageId,
    /// The ride it was said on.
    pub ride: RideId,
    /// The seq of its `message:new`.
    pub seq: Seq,
    /// Who said it.
    pub sender: UserId,
    /// What the sender was on this ride.
    pub sender_role: RideRole,
    /// Its text, until it is deleted.
    pub content: Option<Content>,
    /// What was attached to it, until it is deleted.
    pub metadata: Option<Metadata>,
    /// The sender's own name for it, until the sender is erased.
    pub client_message_id: Option<ClientMessageId>,
    /// Of what it was first sent with.
    pub content_hash: ContentHash,
    /// The labels of its last check, if it was flagged: for staff alone.
    pub labels: Option<Labels>,
    /// Who reacted to it, and how.
    pub reactions: Reactions,
    /// When it was committed.
    pub created_at: Time,
    /// When it was last edited.
    pub edited_at: Option<Time>,
    /// When it was deleted.
    pub deleted_at: Option<Time>,
}

impl Message {
    /// Erases what was said. The tombstone keeps who, where and when.
    pub fn erase(&mut self, now: Time) {
        self.content = None;
        self.metadata = None;
        self.labels = None;
        self.reactions = Reactions::default();
        self.deleted_at = Some(now);
    }

    /// The message as JSON as it is sent to a caller.
    pub fn to_json_for(&self, caller: &Caller, receipts: &Receipts) -> String {
        serde_json::to_string(&self.view_for(caller, receipts)).unwrap_or_default()
    }

    /// The message as JSON, in one line, with what `receipts` say of it.
    pub fn to_json(&self, receipts: &Receipts) -> String {
        serde_json::to_string(&self.view(receipts)).unwrap_or_default()
    }

    /// The message as it is sent to a caller: to staff with its labels.
    pub fn view_for<'a>(&'a self, caller: &Caller, receipts: &Receipts) -> MessageView<'a> {
        let labels = self.labels.as_ref().filter(|_| caller.role.is_staff()).map(Labels::as_slice);
        MessageView { labels, ..self.view(receipts) }
    }

    /// The message as it is sent to everybody.
    pub fn view<'a>(&'a self, receipts: &Receipts) -> MessageView<'a> {
        let (delivered, read) = receipts.reached_by_others(&self.sender);
        MessageView {
            id: self.id,
            ride_id: &self.ride,
            seq: self.seq,
            sender_id: &self.sender,
            sender_role: self.sender_role,
            content: self.content.as_ref().map(Content::as_str),
            metadata: self.metadata.as_ref().map(|metadata| &*metadata.0),
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

/// A message as it is sent.
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Box<RawValue> {
        serde_json::value::to_raw_value(&value).unwrap()
    }

    #[test]
    fn content_is_counted_in_scalars_after_trimming_and_kept_as_sent() {
        let text = "  \r\n e\u{301}🚕 ";
        assert_eq!(Content::parse(text.into()).unwrap().as_str(), text);
        assert!(Content::parse("🚕".repeat(4_000)).is_ok());
        assert!(Content::parse("🚕".repeat(4_001)).is_err());
        assert!(Content::parse("\n".repeat(16 * 1024 - 1) + "x").is_ok());
        assert!(Content::parse("\n".repeat(16 * 1024) + "x").is_err(), "white space has its size");
        assert!(Content::parse(format!("{}{}", " ".repeat(5_000), "x")).is_ok());
        for bad in ["", " \u{2003}\n", "a\0b"] {
            assert!(Content::parse(bad.into()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn metadata_is_bounded_in_size_depth_and_has_no_nul() {
        let nested = |levels: usize| (1..levels).fold(json!({}), |inner, _| json!({ "a": inner }));
        assert!(Metadata::parse(&object(nested(32))).is_ok());
        assert!(Metadata::parse(&object(nested(33))).is_err());
        assert!(Metadata::parse(&object(json!({ "k": "x".repeat(8_192 - 8) }))).is_ok());
        assert!(Metadata::parse(&object(json!({ "k": "x".repeat(8_192 - 7) }))).is_err());
        assert!(Metadata::parse(&object(json!({ "a": ["b\0"] }))).is_err());
        assert!(Metadata::parse(&object(json!({ "a\0": 1 }))).is_err());
        assert!(Metadata::parse(&object(json!([1]))).is_err());
    }

    #[test]
    fn a_number_comes_back_as_it_was_sent_or_is_rejected() {
        let parse = |text: &str| Metadata::parse(&RawValue::from_string(text.to_owned()).unwrap());
        for kept in [
            r#"{"a":18446744073709551615}"#,
            r#"{"a":-9223372036854775808}"#,
            r#"{"a":[13.0,13,1e+30]}"#,
            r#"{"a":"18446744073709551616"}"#,
            r#"{"a\"b":"c\\","d":1}"#,
        ] {
            assert_eq!(parse(kept).unwrap().as_json(), kept);
        }
        for lost in
            [r#"{"a":18446744073709551616}"#, r#"{"a":[-9223372036854775809]}"#, r#"{"\"":99999999999999999999}"#]
        {
            assert!(parse(lost).is_err(), "{lost}");
        }
    }
}
