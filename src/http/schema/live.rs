//! The shapes of what streams and polls say.

use std::collections::BTreeMap;

use salvo::oapi::ToSchema;
use serde_json::Value;

use super::{Driver, Location, Mark, Participant, Person, Ride};
use crate::realtime::Gap;

/// A ride as a stream's `stream:sync` and a poll's answer show it, read in one snapshot with the log's head.
#[derive(ToSchema)]
#[salvo(schema(name = "State", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct State {
    /// The head of the log at that moment: events up to here do not change this any more.
    #[salvo(schema(minimum = 0, example = 4))]
    as_of: i64,
    ride: Ride,
    participants: Vec<Participant>,
    receipts: Vec<Mark>,
    /// The last position of the driver.
    #[salvo(schema(required = true))]
    location: Option<Location>,
    /// Who is typing.
    typing: Vec<Person>,
}

/// The first event of a stream, and one that comes again where the position has to be told.
#[derive(ToSchema)]
#[salvo(schema(name = "StreamSync", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct StreamSync {
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
pub(in crate::http) struct StateAll {
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
pub(in crate::http) struct GapOf {
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
pub(in crate::http) struct Event {
    /// Its position in the log.
    #[salvo(schema(example = "4"))]
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
pub(in crate::http) struct Poll {
    events: Vec<Event>,
    /// What to give as `after` next time.
    #[salvo(schema(example = "4"))]
    cursor: String,
    /// Whether a cursor was given, and honoured without a gap.
    resumed: bool,
    /// What the log no longer has after the given position; `events` come after it.
    #[salvo(schema(required = true))]
    gap: Option<Gap>,
    state: State,
    /// Whether there is more to be had at once.
    has_more: bool,
    /// The ride is over for good, or the caller is no longer on it; nothing more will come.
    #[salvo(schema(required = false))]
    closed: bool,
}

/// The answer of a poll of everything.
#[derive(ToSchema)]
#[salvo(schema(name = "PollAll", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct PollAll {
    events: Vec<Event>,
    /// What to give as `after` next time.
    #[salvo(schema(max_length = 4096))]
    cursor: String,
    /// Whether a cursor was given, and honoured without a gap.
    resumed: bool,
    /// What a log no longer has after the given position; `events` come after it. Where several lack something, the next answers
    /// say so.
    #[salvo(schema(required = true))]
    gap: Option<GapOf>,
    state: StateAll,
    /// Whether there is more to be had at once.
    has_more: bool,
    /// Rides that are left out because there are more than 64; they come in when there is room.
    omitted: Vec<String>,
}

/// An event of the feed.
#[derive(ToSchema)]
#[salvo(schema(name = "FeedEvent", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct FeedEvent {
    /// Its position in the feed.
    #[salvo(schema(example = "4711"))]
    id: String,
    #[salvo(schema(rename = "type", example = "message:new"))]
    r#type: String,
    data: FeedData,
}

/// Where an event of the feed comes from, and the event.
#[derive(ToSchema)]
#[salvo(schema(name = "FeedData", rename_all = "camelCase"))]
#[allow(dead_code, reason = "only its shape is used")]
pub(in crate::http) struct FeedData {
    /// The log: of a ride or of a user.
    #[salvo(schema(example = "ride/ride_123"))]
    topic: String,
    /// Its position in that log. Of `message:undelivered` and `message:flagged`: the message's.
    #[salvo(schema(minimum = 1, example = 4))]
    seq: i64,
    /// When it was committed.
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
    /// What to give as `after` next time. Opaque.
    #[salvo(schema(example = "4711"))]
    cursor: String,
    /// Whether a cursor was given and the page continues from it without a gap.
    resumed: bool,
    /// The positions that the feed no longer has.
    #[salvo(schema(required = true))]
    gap: Option<Gap>,
    /// Always null: the feed has no state.
    #[salvo(schema(required = true))]
    state: Option<String>,
    /// Whether more follows.
    has_more: bool,
}
