//! The response schemas for openapi.yaml. Other types serialize the responses; tests check that both agree.

mod live;
mod locations;
mod push;
mod readiness;
mod records;
mod values;
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
pub(super) use self::values::{RideRole, RideStatus};
pub(super) use self::webhooks::{CreatedWebhook, TestedWebhook, Webhook, WebhookDeliveries, WebhookSecret, Webhooks};
use crate::domain::{Chat, OpensAt};

/// Returns the schema of an id that the platform chooses.
fn id(example: &str) -> RefOr<Schema> {
    let pattern = r"^(?!\.{1,2}$)[A-Za-z0-9_.-]{1,64}$";
    Object::new().schema_type(BasicType::String).pattern(pattern).example(example).into()
}

/// A ride's id.
pub(super) struct RideId;

impl ToSchema for RideId {
    fn to_schema(_components: &mut Components) -> RefOr<Schema> {
        id("ride_123")
    }
}

/// A user's id.
pub(super) struct UserId;

impl ToSchema for UserId {
    fn to_schema(_components: &mut Components) -> RefOr<Schema> {
        id("rider_1")
    }
}

/// A driver's user id, with another example.
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

/// An RFC 3339 time in UTC with milliseconds.
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

/// A message. In a deleted message, `content` and `metadata` are null.
#[derive(ToSchema)]
#[salvo(schema(name = "Message", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct Message {
    /// A UUIDv7.
    id: Uuid,
    ride_id: RideId,
    /// The seq of the message's `message:new` event.
    #[salvo(schema(minimum = 1, example = 4))]
    seq: i64,
    sender_id: UserId,
    /// The sender's role on the ride; `system` is the platform.
    sender_role: RideRole,
    /// As sent, byte for byte.
    #[salvo(schema(required = true, example = "I am at the main gate"))]
    content: Option<String>,
    /// The metadata that the app attached.
    #[salvo(schema(required = true))]
    metadata: Option<BTreeMap<String, Value>>,
    /// The sender's id for the message.
    #[salvo(schema(required = true))]
    client_message_id: Option<String>,
    created_at: DateTime,
    #[salvo(schema(required = true))]
    edited_at: Option<DateTime>,
    #[salvo(schema(required = true))]
    deleted_at: Option<DateTime>,
    /// The labels of a flagged message, for support and service. Null for others, and in events.
    #[salvo(schema(required = true))]
    labels: Option<Vec<String>>,
    reactions: Vec<Reaction>,
    /// Whether the message was delivered to another participant. Support does not count.
    is_delivered: bool,
    /// Whether another participant has read the message. Support does not count.
    is_read: bool,
}

/// An emoji, and the users who reacted with it.
#[derive(ToSchema)]
#[salvo(schema(name = "Reaction", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct Reaction {
    #[salvo(schema(example = "👍"))]
    emoji: String,
    user_ids: Vec<UserId>,
}

/// A user's delivered and read watermarks on a ride.
#[derive(ToSchema)]
#[salvo(schema(name = "Receipt", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct Receipt {
    ride_id: RideId,
    user_id: UserId,
    /// The delivered watermark: the seq of a message, or 0.
    #[salvo(schema(minimum = 0, example = 4))]
    delivered_seq: i64,
    /// The read watermark: the seq of a message, or 0.
    #[salvo(schema(minimum = 0, example = 4))]
    read_seq: i64,
}

/// A user's delivered and read watermarks, within a response about one ride.
#[derive(ToSchema)]
#[salvo(schema(name = "Mark", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct Watermarks {
    user_id: UserId,
    #[salvo(schema(minimum = 0, example = 4))]
    delivered_seq: i64,
    #[salvo(schema(minimum = 0, example = 4))]
    read_seq: i64,
}

/// A participant of a ride.
#[derive(ToSchema)]
#[salvo(schema(name = "Participant", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct Participant {
    user_id: UserId,
    role: RideRole,
    online: bool,
    /// The time since which the participant is online or offline; null where it is unknown.
    #[salvo(schema(required = true))]
    since: Option<DateTime>,
}

/// When a ride's chat opens, and how long after the ride's end it closes.
#[derive(ToSchema)]
#[salvo(schema(name = "ChatPolicy", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct ChatPolicy {
    /// The status at which the chat opens.
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
    ride_id: RideId,
    status: RideStatus,
    rider_id: UserId,
    #[salvo(schema(required = true))]
    driver_id: Option<DriverId>,
    chat: Chat,
    /// When the chat opens and closes; null for the default.
    #[salvo(schema(required = true))]
    chat_policy: Option<ChatPolicy>,
    created_at: DateTime,
    updated_at: DateTime,
}

/// A ride in a list, with its last message and unread count.
#[derive(ToSchema)]
#[salvo(schema(name = "InboxRide", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct InboxRide {
    ride_id: RideId,
    status: RideStatus,
    rider_id: UserId,
    #[salvo(schema(required = true))]
    driver_id: Option<DriverId>,
    chat: Chat,
    /// When the chat opens and closes; null for the default.
    #[salvo(schema(required = true))]
    chat_policy: Option<ChatPolicy>,
    created_at: DateTime,
    updated_at: DateTime,
    /// The newest message, which may be deleted.
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
    /// Whether there are older rides.
    has_more: bool,
    /// The value of `before` for the next page. Opaque.
    #[salvo(schema(required = true))]
    next: Option<String>,
}

/// A page of a ride's messages, oldest first, with the ride's receipts and participants at the same log position.
#[derive(ToSchema)]
#[salvo(schema(name = "History", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct History {
    messages: Vec<Message>,
    /// Whether there are more messages in the page's direction.
    has_more: bool,
    /// The log position at which the page is accurate. A stream that is opened `after` it misses nothing.
    #[salvo(schema(pattern = "^[0-9]+$"))]
    cursor: String,
    receipts: Vec<Watermarks>,
    participants: Vec<Participant>,
}

/// The unread count of a ride.
#[derive(ToSchema)]
#[salvo(schema(name = "UnreadRide", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct UnreadRide {
    ride_id: RideId,
    #[salvo(schema(minimum = 0))]
    unread_count: i64,
}

/// The unread counts of all rides that have unread messages.
#[derive(ToSchema)]
#[salvo(schema(name = "Unread", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct Unread {
    #[salvo(schema(minimum = 0))]
    total: i64,
    rides: Vec<UnreadRide>,
}

/// The presence of a ride's participants.
#[derive(ToSchema)]
#[salvo(schema(name = "Presence", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct Presence {
    participants: Vec<Participant>,
}

/// The location of a ride's driver.
#[derive(ToSchema)]
#[salvo(schema(name = "Location", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct Location {
    ride_id: RideId,
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

/// The availability of a driver.
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

/// A page of available drivers, sorted by id.
#[derive(ToSchema)]
#[salvo(schema(name = "AvailableDrivers", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct AvailableDrivers {
    drivers: Vec<Driver>,
    /// Whether there are more drivers.
    has_more: bool,
    /// The value of `after` for the next page.
    #[salvo(schema(required = true))]
    next: Option<DriverId>,
}

/// The number of recipients of a broadcast.
#[derive(ToSchema)]
#[salvo(schema(name = "BroadcastCount"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct BroadcastCount {
    /// The number of users, without duplicates.
    #[salvo(schema(minimum = 1))]
    count: usize,
}

/// The result of an erasure.
#[derive(ToSchema)]
#[salvo(schema(name = "Erased", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct Erased {
    /// The erased user.
    user_id: UserId,
    /// The number of messages that this request has erased.
    #[salvo(schema(minimum = 0))]
    messages: usize,
}

/// The result of a revocation.
#[derive(ToSchema)]
#[salvo(schema(name = "Revoked", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct Revoked {
    /// The user whose tokens are revoked.
    user_id: UserId,
    /// Tokens that were issued until this time are rejected.
    revoked_at: DateTime,
}

/// A stream ticket.
#[derive(ToSchema)]
#[salvo(schema(name = "StreamTicket", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct StreamTicket {
    /// The value of `?ticket=`.
    ticket: String,
    /// When the ticket expires: with the token that created it.
    expires_at: DateTime,
}
