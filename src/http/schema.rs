//! The shapes of the interface, for openapi.yaml. What is sent is made elsewhere; tests hold the two together.

mod live;
mod locations;
mod push;
mod readiness;
mod records;
mod webhooks;

use std::collections::BTreeMap;

use salvo::oapi::schema::{BasicType, Object, SchemaFormat};
use salvo::oapi::{Components, RefOr, Schema, ToSchema};
use serde_json::Value;

pub(super) use self::live::{FeedPage, Poll, PollAll};
pub(super) use self::locations::{NewAccuracy, NewHeading, NewSpeed};
pub(super) use self::push::PushKey;
pub(super) use self::readiness::{NotReady, Ready};
pub(super) use self::records::{AuditPage, MessageTrace};
pub(super) use self::webhooks::{CreatedWebhook, TestedWebhook, Webhook, WebhookDeliveries, WebhookSecret, Webhooks};
use crate::domain::{Chat, OpensAt, RideRole, Status};

/// An id that the caller chooses.
fn id(example: &str) -> RefOr<Schema> {
    let pattern = r"^(?!\.{1,2}$)[A-Za-z0-9_.-]{1,64}$";
    Object::new().schema_type(BasicType::String).pattern(pattern).example(example).into()
}

/// A ride's id.
pub(super) struct Id;

impl ToSchema for Id {
    fn to_schema(_components: &mut Components) -> RefOr<Schema> {
        id("ride_123")
    }
}

/// A user's id.
pub(super) struct Person;

impl ToSchema for Person {
    fn to_schema(_components: &mut Components) -> RefOr<Schema> {
        id("rider_1")
    }
}

/// The id of a user who drives.
pub(super) struct DriverId;

impl ToSchema for DriverId {
    fn to_schema(_components: &mut Components) -> RefOr<Schema> {
        id("driver_1")
    }
}

/// A message's id.
pub(super) struct Uuid;

impl ToSchema for Uuid {
    fn to_schema(_components: &mut Components) -> RefOr<Schema> {
        Object::new().schema_type(BasicType::String).format(SchemaFormat::Custom("uuid".into())).into()
    }
}

/// One emoji.
pub(super) struct EmojiText;

impl ToSchema for EmojiText {
    fn to_schema(_components: &mut Components) -> RefOr<Schema> {
        Object::new().schema_type(BasicType::String).example("👍").into()
    }
}

/// RFC 3339, UTC, milliseconds.
pub(super) struct DateTime;

impl ToSchema for DateTime {
    fn to_schema(_components: &mut Components) -> RefOr<Schema> {
        Object::new()
            .schema_type(BasicType::String)
            .format(SchemaFormat::Custom("date-time".into()))
            .example("2026-01-22T22:45:00.123Z")
            .into()
    }
}

/// A message. A deleted one keeps who, where and when; `content` and `metadata` are null.
#[derive(ToSchema)]
#[salvo(schema(name = "Message", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct Message {
    /// A UUID of version 7.
    id: Uuid,
    ride_id: Id,
    /// The seq of its `message:new`.
    #[salvo(schema(minimum = 1, example = 4))]
    seq: i64,
    sender_id: Person,
    /// What the sender was on this ride; `system` is the platform.
    sender_role: RideRole,
    /// As sent, byte for byte.
    #[salvo(schema(required = true, example = "I am at the main gate"))]
    content: Option<String>,
    /// What the app attached.
    #[salvo(schema(required = true))]
    metadata: Option<BTreeMap<String, Value>>,
    /// The sender's own name for it.
    #[salvo(schema(required = true))]
    client_message_id: Option<String>,
    created_at: DateTime,
    #[salvo(schema(required = true))]
    edited_at: Option<DateTime>,
    #[salvo(schema(required = true))]
    deleted_at: Option<DateTime>,
    /// Of a flagged message, for support and service; null for others, and in events.
    #[salvo(schema(required = true))]
    labels: Option<Vec<String>>,
    reactions: Vec<Reaction>,
    /// Whether it has reached another participant (support does not count).
    is_delivered: bool,
    /// Whether another participant has read it.
    is_read: bool,
}

/// An emoji, and who reacted with it.
#[derive(ToSchema)]
#[salvo(schema(name = "Reaction", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct Reaction {
    #[salvo(schema(example = "👍"))]
    emoji: String,
    user_ids: Vec<Person>,
}

/// How far a user has received and read a ride.
#[derive(ToSchema)]
#[salvo(schema(name = "Receipt", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct Receipt {
    ride_id: Id,
    user_id: Person,
    /// The seq of the last message that has reached them; 0 for none.
    #[salvo(schema(minimum = 0, example = 4))]
    delivered_seq: i64,
    /// The seq of the last message that they have read; 0 for none.
    #[salvo(schema(minimum = 0, example = 4))]
    read_seq: i64,
}

/// The same within a ride.
#[derive(ToSchema)]
#[salvo(schema(name = "Mark", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct Mark {
    user_id: Person,
    #[salvo(schema(minimum = 0, example = 4))]
    delivered_seq: i64,
    #[salvo(schema(minimum = 0, example = 4))]
    read_seq: i64,
}

/// Somebody on a ride.
#[derive(ToSchema)]
#[salvo(schema(name = "Participant", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct Participant {
    user_id: Person,
    role: RideRole,
    online: bool,
    /// Since when they are online, or offline; null where that is not known.
    #[salvo(schema(required = true))]
    since: Option<DateTime>,
}

/// When a ride's chat opens, and how long after the ride's end it closes.
#[derive(ToSchema)]
#[salvo(schema(name = "ChatPolicy", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct ChatPolicy {
    /// The status from which on the chat is open.
    opens_at: OpensAt,
    /// Seconds after the ride's end.
    grace_seconds: GraceSeconds,
}

/// How long a chat stays open after its ride's end, in seconds.
#[derive(ToSchema)]
#[salvo(schema(name = "GraceSeconds"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct GraceSeconds {
    /// For the rider.
    #[salvo(schema(minimum = 0, maximum = 31536000, example = 86400))]
    rider: i64,
    /// For the driver.
    #[salvo(schema(minimum = 0, maximum = 31536000, example = 3600))]
    driver: i64,
}

/// A ride.
#[derive(ToSchema)]
#[salvo(schema(name = "Ride", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct Ride {
    ride_id: Id,
    status: Status,
    rider_id: Person,
    #[salvo(schema(required = true))]
    driver_id: Option<DriverId>,
    chat: Chat,
    /// When the chat opens and closes; null for the default.
    #[salvo(schema(required = true))]
    chat_policy: Option<ChatPolicy>,
    created_at: DateTime,
    updated_at: DateTime,
}

/// A ride as it stands in its owner's list.
#[derive(ToSchema)]
#[salvo(schema(name = "InboxRide", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct InboxRide {
    ride_id: Id,
    status: Status,
    rider_id: Person,
    #[salvo(schema(required = true))]
    driver_id: Option<DriverId>,
    chat: Chat,
    /// When the chat opens and closes; null for the default.
    #[salvo(schema(required = true))]
    chat_policy: Option<ChatPolicy>,
    created_at: DateTime,
    updated_at: DateTime,
    /// Its newest message, deleted ones included.
    #[salvo(schema(required = true))]
    last_message: Option<Message>,
    #[salvo(schema(minimum = 0))]
    unread_count: i64,
}

/// A page of rides, newest first.
#[derive(ToSchema)]
#[salvo(schema(name = "Inbox", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct Inbox {
    rides: Vec<InboxRide>,
    /// Whether there are older ones.
    has_more: bool,
    /// What to give as `before` for the next page: opaque.
    #[salvo(schema(required = true))]
    next: Option<String>,
}

/// A page of a ride's messages, oldest first, and the ride's people at the same moment.
#[derive(ToSchema)]
#[salvo(schema(name = "History", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct History {
    messages: Vec<Message>,
    /// Whether there are more in the page's direction.
    has_more: bool,
    /// The position in the log that this page is true at: a stream opened `after` it misses nothing.
    #[salvo(schema(pattern = "^[0-9]+$"))]
    cursor: String,
    receipts: Vec<Mark>,
    participants: Vec<Participant>,
}

/// Unread messages of one ride.
#[derive(ToSchema)]
#[salvo(schema(name = "UnreadRide", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct UnreadRide {
    ride_id: Id,
    #[salvo(schema(minimum = 0))]
    unread_count: i64,
}

/// Unread messages of all rides that have any.
#[derive(ToSchema)]
#[salvo(schema(name = "Unread", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct Unread {
    #[salvo(schema(minimum = 0))]
    total: i64,
    rides: Vec<UnreadRide>,
}

/// Who of a ride's people follows it.
#[derive(ToSchema)]
#[salvo(schema(name = "Presence", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct Presence {
    participants: Vec<Participant>,
}

/// Where a ride's driver is.
#[derive(ToSchema)]
#[salvo(schema(name = "Location", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct Location {
    ride_id: Id,
    driver_id: DriverId,
    #[salvo(schema(minimum = -90, maximum = 90, example = 52.52))]
    lat: f64,
    #[salvo(schema(minimum = -180, maximum = 180, example = 13.405))]
    lng: f64,
    #[salvo(schema(required = true))]
    heading: Option<f64>,
    #[salvo(schema(required = true))]
    speed: Option<f64>,
    #[salvo(schema(required = true))]
    accuracy: Option<f64>,
    at: DateTime,
}

/// Whether a driver takes rides.
#[derive(ToSchema)]
#[salvo(schema(name = "Driver", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct Driver {
    driver_id: DriverId,
    available: bool,
    #[salvo(schema(required = true, minimum = -90, maximum = 90))]
    lat: Option<f64>,
    #[salvo(schema(required = true, minimum = -180, maximum = 180))]
    lng: Option<f64>,
    at: DateTime,
}

/// A page of the drivers who take rides, by their ids.
#[derive(ToSchema)]
#[salvo(schema(name = "AvailableDrivers", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct AvailableDrivers {
    drivers: Vec<Driver>,
    /// Whether there are more.
    has_more: bool,
    /// What to give as `after` for the next page.
    #[salvo(schema(required = true))]
    next: Option<DriverId>,
}

/// How many users a broadcast is for.
#[derive(ToSchema)]
#[salvo(schema(name = "BroadcastCount"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct BroadcastCount {
    /// Users named twice count once.
    #[salvo(schema(minimum = 1))]
    count: usize,
}

/// What was erased of a person.
#[derive(ToSchema)]
#[salvo(schema(name = "Erased", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct Erased {
    /// Whose.
    user_id: Person,
    /// How many messages, this time.
    #[salvo(schema(minimum = 0))]
    messages: usize,
}

/// Whose logins count no longer.
#[derive(ToSchema)]
#[salvo(schema(name = "Revoked", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct Revoked {
    /// Whose.
    user_id: Person,
    /// Tokens issued until then are refused.
    revoked_at: DateTime,
}

/// A ticket for streams.
#[derive(ToSchema)]
#[salvo(schema(name = "StreamTicket", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct StreamTicket {
    /// What to give as `?ticket=`.
    ticket: String,
    /// When it ends: with the token it was made with.
    expires_at: DateTime,
}
