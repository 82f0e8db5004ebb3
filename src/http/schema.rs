//! The shapes of the interface, for openapi.yaml. What is sent is made elsewhere; tests hold the two together.

use std::collections::BTreeMap;

use salvo::oapi::schema::{BasicType, Object, SchemaFormat};
use salvo::oapi::{Components, RefOr, Schema, ToSchema};
use serde_json::Value;

use crate::domain::{Chat, RideRole, Status};
use crate::realtime::Gap;

/// A ride's or user's id.
pub(super) struct Id;

impl ToSchema for Id {
    fn to_schema(_components: &mut Components) -> RefOr<Schema> {
        Object::new().schema_type(BasicType::String).pattern("^[A-Za-z0-9_.-]{1,64}$").example("ride_123").into()
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
    #[salvo(schema(minimum = 1))]
    seq: i64,
    sender_id: Id,
    /// What the sender was on this ride; `system` is the platform.
    sender_role: RideRole,
    /// As sent, byte for byte.
    #[salvo(schema(required = true))]
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
    emoji: String,
    user_ids: Vec<Id>,
}

/// How far a user has received and read a ride.
#[derive(ToSchema)]
#[salvo(schema(name = "Receipt", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct Receipt {
    ride_id: Id,
    user_id: Id,
    /// The seq of the last message that has reached them; 0 for none.
    #[salvo(schema(minimum = 0))]
    delivered_seq: i64,
    /// The seq of the last message that they have read; 0 for none.
    #[salvo(schema(minimum = 0))]
    read_seq: i64,
}

/// The same within a ride.
#[derive(ToSchema)]
#[salvo(schema(name = "Mark", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct Mark {
    user_id: Id,
    #[salvo(schema(minimum = 0))]
    delivered_seq: i64,
    #[salvo(schema(minimum = 0))]
    read_seq: i64,
}

/// Somebody on a ride.
#[derive(ToSchema)]
#[salvo(schema(name = "Participant", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct Participant {
    user_id: Id,
    role: RideRole,
    online: bool,
    /// Since when they are online, or offline; null where that is not known.
    #[salvo(schema(required = true))]
    since: Option<DateTime>,
}

/// A ride.
#[derive(ToSchema)]
#[salvo(schema(name = "Ride", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct Ride {
    ride_id: Id,
    status: Status,
    rider_id: Id,
    #[salvo(schema(required = true))]
    driver_id: Option<Id>,
    chat: Chat,
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
    rider_id: Id,
    #[salvo(schema(required = true))]
    driver_id: Option<Id>,
    chat: Chat,
    created_at: DateTime,
    updated_at: DateTime,
    /// Its newest message, deleted ones included.
    #[salvo(schema(required = true))]
    last_message: Option<Message>,
    #[salvo(schema(minimum = 0))]
    unread_count: i64,
}

/// A page of one's rides, newest first.
#[derive(ToSchema)]
#[salvo(schema(name = "Inbox", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct Inbox {
    rides: Vec<InboxRide>,
    /// Whether there are older ones.
    has_more: bool,
    /// What to give as `before` for the next page.
    #[salvo(schema(required = true))]
    next: Option<Id>,
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
    driver_id: Id,
    #[salvo(schema(minimum = -90, maximum = 90))]
    lat: f64,
    #[salvo(schema(minimum = -180, maximum = 180))]
    lng: f64,
    #[salvo(schema(required = true))]
    heading: Option<f64>,
    #[salvo(schema(required = true))]
    speed: Option<f64>,
    #[salvo(schema(required = true))]
    accuracy: Option<f64>,
    at: DateTime,
}

/// A ride as a stream's `stream:sync` and a poll's answer show it, read in one snapshot with the log's head.
#[derive(ToSchema)]
#[salvo(schema(name = "State", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct State {
    /// The head of the log at that moment: events up to here do not change this any more.
    #[salvo(schema(minimum = 0))]
    as_of: i64,
    ride: Ride,
    participants: Vec<Participant>,
    receipts: Vec<Mark>,
    /// The last position of the driver.
    #[salvo(schema(required = true))]
    location: Option<Location>,
    /// Who is typing.
    typing: Vec<Id>,
}

/// The first event of a stream, and one that comes again where the position has to be told.
#[derive(ToSchema)]
#[salvo(schema(name = "StreamSync", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct StreamSync {
    /// The position that what follows comes after.
    cursor: String,
    /// Whether a cursor was given, and honoured without a gap.
    resumed: bool,
    /// What the log no longer has.
    #[salvo(schema(required = true))]
    gap: Option<Gap>,
    state: State,
}

/// Everything of the caller's, as a stream's `stream:sync` and a poll's answer show it.
#[derive(ToSchema)]
#[salvo(schema(name = "StateAll", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct StateAll {
    /// The rides by their ids, each read in one snapshot with the head of its log.
    rides: BTreeMap<String, State>,
    /// To support and service: drivers who take rides, at most 1000.
    #[salvo(schema(required = false))]
    drivers: Vec<Driver>,
}

/// What one of many logs no longer has.
#[derive(ToSchema)]
#[salvo(schema(name = "GapOf"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct GapOf {
    /// Which log.
    #[salvo(schema(example = "ride/ride_123"))]
    topic: String,
    /// The first.
    #[salvo(schema(minimum = 1))]
    from: i64,
    /// The last.
    #[salvo(schema(minimum = 1))]
    to: i64,
}

/// An event in a poll's answer.
#[derive(ToSchema)]
#[salvo(schema(name = "Event", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct Event {
    /// Its position in the log.
    id: String,
    #[salvo(schema(rename = "type", example = "message:new"))]
    r#type: String,
    /// See the events.
    data: BTreeMap<String, Value>,
}

/// A poll's answer.
#[derive(ToSchema)]
#[salvo(schema(name = "Poll", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct Poll {
    events: Vec<Event>,
    /// What to give as `after` next time.
    cursor: String,
    /// Whether a cursor was given, and honoured without a gap.
    resumed: bool,
    /// What the log no longer has.
    #[salvo(schema(required = true))]
    gap: Option<Gap>,
    state: State,
    /// Whether there is more to be had at once.
    has_more: bool,
    /// The ride is over for good, or the caller is no longer on it; nothing more will come.
    #[salvo(schema(required = false))]
    closed: bool,
}

/// Whether a driver takes rides.
#[derive(ToSchema)]
#[salvo(schema(name = "Driver", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct Driver {
    driver_id: Id,
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
    next: Option<Id>,
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

/// The answer of a poll of everything.
#[derive(ToSchema)]
#[salvo(schema(name = "PollAll", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct PollAll {
    events: Vec<Event>,
    /// What to give as `after` next time.
    #[salvo(schema(max_length = 4096))]
    cursor: String,
    /// Whether a cursor was given, and honoured without a gap.
    resumed: bool,
    /// What a log no longer has; where several lack something, the next answers say so.
    #[salvo(schema(required = true))]
    gap: Option<GapOf>,
    state: StateAll,
    /// Whether there is more to be had at once.
    has_more: bool,
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

/// Whether this server can do its work.
#[derive(ToSchema)]
#[salvo(schema(name = "Ready", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct Ready {
    /// `ok` or `unavailable`.
    status: String,
    /// Whether Postgres answers.
    database: bool,
    /// How hints of other replicas arrive: `listening`, `connecting`, `deaf`, `off`.
    listen: String,
}
