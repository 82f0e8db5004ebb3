//! The schemas of streams and polls.

use std::collections::BTreeMap;

use salvo::oapi::ToSchema;
use serde_json::Value;

use super::{Driver, Location, Participant, Ride, UserId, Watermarks};
use crate::realtime::Gap;

/// The state of a ride in `stream:sync` and in a poll's response, read in one snapshot with the log's head.
#[derive(ToSchema)]
#[salvo(schema(name = "State", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct State {
    /// The log's head in the snapshot. Events up to this seq do not change the state any more.
    #[salvo(schema(minimum = 0, example = 4))]
    as_of: i64,
    ride: Ride,
    participants: Vec<Participant>,
    receipts: Vec<Watermarks>,
    /// The latest location of the driver.
    #[salvo(schema(required = true))]
    location: Option<Location>,
    /// The users who are typing.
    typing: Vec<UserId>,
}

/// The first event of a stream. It is sent again where the cursor changes without an event.
#[derive(ToSchema)]
#[salvo(schema(name = "StreamSync", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct StreamSync {
    /// The log position that the next events follow.
    cursor: String,
    /// Whether the client gave a cursor and the stream continues from it without a gap.
    resumed: bool,
    /// The events that the log no longer has.
    #[salvo(schema(required = true))]
    gap: Option<Gap>,
    state: State,
}

/// The state of all the caller's rides in `stream:sync` and in a poll's response.
#[derive(ToSchema)]
#[salvo(schema(name = "StateAll", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct StateAll {
    /// The rides by id, each read in one snapshot with the head of its log.
    rides: BTreeMap<String, State>,
    /// For support and service: the available drivers, at most 1000.
    #[salvo(schema(required = false))]
    drivers: Vec<Driver>,
}

/// The events that one of several logs no longer has.
#[derive(ToSchema)]
#[salvo(schema(name = "GapOf"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct GapOf {
    /// The topic of the log.
    #[salvo(schema(example = "ride/ride_123"))]
    topic: String,
    /// The first missing seq.
    #[salvo(schema(minimum = 1))]
    from: i64,
    /// The last missing seq.
    #[salvo(schema(minimum = 1))]
    to: i64,
}

/// An event in a poll's response.
#[derive(ToSchema)]
#[salvo(schema(name = "Event", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct Event {
    /// The event's position in the log.
    #[salvo(schema(example = "4"))]
    id: String,
    #[salvo(schema(rename = "type", example = "message:new"))]
    r#type: String,
    /// The data of the event, as documented for its type.
    data: BTreeMap<String, Value>,
}

/// The response of a ride's poll.
#[derive(ToSchema)]
#[salvo(schema(name = "Poll", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct Poll {
    events: Vec<Event>,
    /// The value of `after` for the next request.
    #[salvo(schema(example = "4"))]
    cursor: String,
    /// Whether the client gave a cursor and the response continues from it without a gap.
    resumed: bool,
    /// The events after the given cursor that the log no longer has. `events` come after the gap.
    #[salvo(schema(required = true))]
    gap: Option<Gap>,
    state: State,
    /// Whether more events are available immediately.
    has_more: bool,
    /// True where the ride is closed, or the caller's access has ended. No more events follow.
    #[salvo(schema(required = false))]
    closed: bool,
}

/// The response of the poll of all the caller's events.
#[derive(ToSchema)]
#[salvo(schema(name = "PollAll", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct PollAll {
    events: Vec<Event>,
    /// The value of `after` for the next request.
    #[salvo(schema(max_length = 4096))]
    cursor: String,
    /// Whether the client gave a cursor and the response continues from it without a gap.
    resumed: bool,
    /// The events after the given cursor that a log no longer has. `events` come after the gap. Gaps in other logs follow in the
    /// next responses.
    #[salvo(schema(required = true))]
    gap: Option<GapOf>,
    state: StateAll,
    /// Whether more events are available immediately.
    has_more: bool,
    /// Rides that are left out because the caller has more than 64. They are included when there is room.
    omitted: Vec<String>,
}

/// An event of the feed.
#[derive(ToSchema)]
#[salvo(schema(name = "FeedEvent", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct FeedEvent {
    /// The event's position in the feed.
    #[salvo(schema(example = "4711"))]
    id: String,
    #[salvo(schema(rename = "type", example = "message:new"))]
    r#type: String,
    data: FeedData,
}

/// The source of an event of the feed, and the event's data.
#[derive(ToSchema)]
#[salvo(schema(name = "FeedData", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct FeedData {
    /// The topic of the event: of a ride or of a user.
    #[salvo(schema(example = "ride/ride_123"))]
    topic: String,
    /// The event's position in the topic's log. For `message:undelivered` and `message:flagged`: the seq of the message.
    #[salvo(schema(minimum = 1, example = 4))]
    seq: i64,
    /// When the event was committed.
    #[salvo(schema(format = DateTime))]
    at: String,
    /// The data of the event, as on the ride.
    data: BTreeMap<String, Value>,
}

/// A page of the feed.
#[derive(ToSchema)]
#[salvo(schema(name = "FeedPage", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct FeedPage {
    events: Vec<FeedEvent>,
    /// The value of `after` for the next request. Opaque.
    #[salvo(schema(example = "4711"))]
    cursor: String,
    /// Whether the client gave a cursor and the page continues from it without a gap.
    resumed: bool,
    /// The positions that the feed no longer has.
    #[salvo(schema(required = true))]
    gap: Option<Gap>,
    /// Always null: the feed has no state.
    #[salvo(schema(required = true))]
    state: Option<String>,
    /// Whether more events are available immediately.
    has_more: bool,
}
