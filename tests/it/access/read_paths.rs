//! The read paths of a server, and what a reader receives through each.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::collector::{is_typing, online};
use super::fixture::{DRIVERS, Fixture, RIDE, Reader};
use super::oracle::{Oracle, key, ride_view, views_of_messages};
use super::{Output, Scope, scope};
use crate::support::{Event, Stream, User, eventually};

/// The timeout after which an event counts as missing. It costs time only when a test fails.
const MISSING: Duration = Duration::from_secs(45);

/// A read path: a way to read events, or state that events have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadPath {
    /// A replay of the ride's stream.
    Stream,
    Poll,
    MergedStream,
    MergedPoll,
    /// The ride's stream with a ticket for the ride, or for all rides; and the merged stream with a ticket.
    TicketForRide,
    TicketForAll,
    TicketMerged,
    /// Streams that were open during the whole test.
    LiveStream,
    LiveMerged,
    /// The `state` of a stream, of a poll, and of a merged poll.
    StreamState,
    PollState,
    MergedState,
    History,
    /// `GET /messages/{id}` for each message.
    Message,
    Unread,
    UnreadAll,
    List,
    Ride,
    Presence,
    Location,
    Feed,
}

impl ReadPath {
    pub(crate) const ALL: [Self; 21] = [
        Self::Stream,
        Self::Poll,
        Self::MergedStream,
        Self::MergedPoll,
        Self::TicketForRide,
        Self::TicketForAll,
        Self::TicketMerged,
        Self::LiveStream,
        Self::LiveMerged,
        Self::StreamState,
        Self::PollState,
        Self::MergedState,
        Self::History,
        Self::Message,
        Self::Unread,
        Self::UnreadAll,
        Self::List,
        Self::Ride,
        Self::Presence,
        Self::Location,
        Self::Feed,
    ];

    pub(crate) fn is_live(self) -> bool {
        matches!(self, Self::LiveStream | Self::LiveMerged)
    }

    pub(crate) fn is_merged(self) -> bool {
        matches!(
            self,
            Self::MergedStream | Self::MergedPoll | Self::TicketMerged | Self::LiveMerged | Self::MergedState
        )
    }

    /// Returns whether the path returns the current state of messages.
    pub(crate) fn shows_current_messages(self) -> bool {
        matches!(self, Self::History | Self::Message | Self::List)
    }

    /// Returns whether the path includes the ride. A merged stream includes only rides of a participant.
    pub(crate) fn includes_ride_for(self, reader: &Reader) -> bool {
        self != Self::Feed && !(self.is_merged() && reader.is_staff())
    }
}

/// Appends an event as (type, key) if it is durable.
fn durable(kind: &str, data: &Value, events: &mut Vec<(String, String)>) {
    if kind.starts_with("stream:")
        || kind == "auth:expired"
        || [Scope::RideUnlogged, Scope::DispatchUnlogged].contains(&scope(kind))
    {
        return;
    }
    events.push((kind.to_owned(), key(kind, data)));
}

fn of_events(events: &[Event]) -> Output {
    let mut output = Output::default();
    for event in events {
        output.text.push_str(&event.text);
        output.text.push('\n');
        durable(&event.kind, &event.data, &mut output.events);
    }
    output
}

impl Fixture {
    /// Reads through a read path.
    pub(crate) async fn read(&self, via: ReadPath, reader: &Reader, oracle: &Oracle) -> Output {
        let user = &reader.user;
        let of_ride = format!("messages/rides/{RIDE}");
        match via {
            ReadPath::Stream | ReadPath::StreamState => {
                let request = user.request(Method::GET, &format!("{of_ride}/events?after=0"));
                self.stream(via, reader, request, oracle).await
            }
            ReadPath::MergedStream => {
                self.stream(via, reader, user.request(Method::GET, "events?after=0"), oracle).await
            }
            ReadPath::TicketForRide | ReadPath::TicketForAll | ReadPath::TicketMerged => {
                let body = if via == ReadPath::TicketForRide { json!({ "rideId": RIDE }) } else { json!({}) };
                let response = user.post("stream-tickets", body).await;
                if response.status != 201 {
                    return Output::rejected(response.status.as_u16(), response.text());
                }
                let ticket = response.json()["ticket"].as_str().unwrap().to_owned();
                let path =
                    if via == ReadPath::TicketMerged { "events".to_owned() } else { format!("{of_ride}/events") };
                let request =
                    user.clone().with_token("").request(Method::GET, &format!("{path}?after=0&ticket={ticket}"));
                self.stream(via, reader, request, oracle).await
            }
            ReadPath::Poll => self.polled(user, &format!("{of_ride}/poll?after=0&wait=0")).await,
            ReadPath::MergedPoll => self.polled(user, "poll?after=0&wait=0").await,
            ReadPath::Feed => self.feed(user).await,
            ReadPath::LiveMerged => live(reader, &self.live_merged[reader.label].events()),
            ReadPath::LiveStream => {
                let streams = self.live_ride.iter().filter(|(label, ..)| *label == reader.label);
                live(reader, &streams.flat_map(|(.., live)| live.events()).collect::<Vec<_>>())
            }
            ReadPath::PollState => {
                let response = user.get(&format!("{of_ride}/poll?after=0&wait=0")).await;
                if response.status != 200 {
                    return Output::rejected(response.status.as_u16(), response.text());
                }
                self.state(&response.json()["state"])
            }
            ReadPath::MergedState => {
                let state = user.get("poll?after=0&wait=0").await.expect(200).json()["state"].clone();
                // The ride of a former participant may be included, with its state at the end of access, or omitted.
                let mut output = match state["rides"].get(RIDE) {
                    Some(state) => self.state(state),
                    None if reader.is_staff() || !oracle.has_lost_access(reader) => Output::default(),
                    None => oracle.expected(via, reader),
                };
                let drivers = state["drivers"]
                    .as_array()
                    .map(|drivers| drivers.iter().map(|driver| &driver["driverId"]).collect::<Vec<_>>());
                output.views.insert("driver:availability", json!(drivers));
                output.text = state.to_string();
                output
            }
            ReadPath::Message => self.messages(user, oracle).await,
            ReadPath::History
            | ReadPath::Unread
            | ReadPath::UnreadAll
            | ReadPath::List
            | ReadPath::Ride
            | ReadPath::Presence
            | ReadPath::Location => self.current_state(via, user).await,
        }
    }

    /// Reads a stream to its end, or to the last event that its reader may see.
    async fn stream(
        &self,
        via: ReadPath,
        reader: &Reader,
        request: reqwest::RequestBuilder,
        oracle: &Oracle,
    ) -> Output {
        let mut stream = Stream::open(request).await;
        if stream.status != 200 {
            return Output::rejected(stream.status.as_u16(), String::new());
        }
        if via == ReadPath::StreamState {
            return self.state(&stream.next_sync().await["state"]);
        }
        let mut missing = oracle.expected(via, reader).events.len();
        let mut events = Vec::new();
        // A stream that the server ends is read to its end. An event that does not arrive in time is missing.
        while missing > 0 || (oracle.has_lost_access(reader) && !via.is_merged()) {
            let Ok(Some(event)) = timeout(MISSING, stream.try_next()).await else { break };
            let mut found = Vec::new();
            durable(&event.kind, &event.data, &mut found);
            missing = missing.saturating_sub(found.len());
            events.push(event);
        }
        of_events(&events)
    }

    async fn polled(&self, user: &User, path: &str) -> Output {
        // One response has all events, unless an event was committed at the same time. A second poll would acknowledge
        // delivery, and thus write to the log.
        let response = eventually("a complete page", async || {
            let response = user.get(path).await;
            (response.status != 200 || response.json()["hasMore"] == false).then_some(response)
        })
        .await;
        if response.status != 200 {
            return Output::rejected(response.status.as_u16(), response.text());
        }
        let page = response.json();
        let mut output = Output { text: response.text(), ..Output::default() };
        for event in page["events"].as_array().unwrap() {
            durable(event["type"].as_str().unwrap(), &event["data"], &mut output.events);
        }
        output
    }

    async fn feed(&self, user: &User) -> Output {
        let mut output = Output::default();
        let (mut cursor, mut is_undelivered) = ("0".to_owned(), false);
        loop {
            let response = user.get(&format!("feed/poll?after={cursor}&wait=0")).await;
            if response.status != 200 {
                return Output::rejected(response.status.as_u16(), response.text());
            }
            let page = response.json();
            output.text.push_str(&response.text());
            for event in page["events"].as_array().unwrap() {
                let kind = event["type"].as_str().unwrap();
                // Their number depends on timing.
                if kind == "message:undelivered" {
                    is_undelivered = true;
                    continue;
                }
                durable(kind, &event["data"]["data"], &mut output.events);
            }
            cursor = page["cursor"].as_str().unwrap().to_owned();
            if page["hasMore"] == false {
                break;
            }
        }
        output.views.insert("message:undelivered", json!(is_undelivered));
        output
    }

    fn state(&self, state: &Value) -> Output {
        let mut views = receipts(state);
        views.insert("ride:participants", names(&state["participants"]));
        views.insert("ride:status", ride_view(&state["ride"]));
        views.insert("ride:location", state["location"]["lat"].clone());
        let participants = names(&state["participants"]);
        let typing_users = state["typing"].as_array().unwrap();
        let are_participants = typing_users.iter().all(|user| participants.as_array().unwrap().contains(user));
        let typing = if are_participants { json!("participants only") } else { state["typing"].clone() };
        views.insert("typing:indicator", typing);
        Output { views, text: state.to_string(), ..Output::default() }
    }

    async fn messages(&self, user: &User, oracle: &Oracle) -> Output {
        let (mut found, mut text) = (Vec::new(), String::new());
        for id in oracle.message_ids() {
            let response = user.get(&format!("messages/{id}")).await;
            text.push_str(&response.text());
            if response.status == 200 {
                found.push(response.json());
            } else {
                response.problem(404, "message_not_found");
            }
        }
        Output { views: message_views(&found), text, ..Output::default() }
    }

    /// Reads the ride's current state.
    async fn current_state(&self, via: ReadPath, user: &User) -> Output {
        let of_ride = format!("messages/rides/{RIDE}");
        let path = match via {
            ReadPath::History => format!("{of_ride}?limit=200"),
            ReadPath::Unread => format!("{of_ride}/unread-count"),
            ReadPath::UnreadAll => "messages/unread-count".to_owned(),
            ReadPath::List => "rides".to_owned(),
            ReadPath::Ride => format!("rides/{RIDE}"),
            ReadPath::Presence => format!("{of_ride}/presence"),
            _ => format!("rides/{RIDE}/location"),
        };
        let response = user.get(&path).await;
        if response.status != 200 {
            return Output::rejected(response.status.as_u16(), response.text());
        }
        let (body, text) = (response.json(), response.text());
        let count = |count: &Value| {
            let kinds = ["message:new", "message:deleted", "message:read"];
            kinds.into_iter().map(|kind| (kind, count.clone())).collect::<BTreeMap<_, _>>()
        };
        let views = match via {
            ReadPath::History => {
                let mut views = message_views(body["messages"].as_array().unwrap());
                views.extend(receipts(&body));
                views.insert("ride:participants", names(&body["participants"]));
                views
            }
            ReadPath::Unread => count(&body["unreadCount"]),
            ReadPath::UnreadAll => count(&body["total"]),
            ReadPath::List => match body["rides"].as_array().unwrap().first() {
                Some(ride) => {
                    let mut views = count(&ride["unreadCount"]);
                    views.insert("message:edited", ride["lastMessage"]["content"].clone());
                    views.insert("message:reaction", ride["lastMessage"]["id"].clone());
                    views.insert("ride:status", ride_view(ride));
                    views
                }
                None => BTreeMap::new(),
            },
            ReadPath::Ride => BTreeMap::from([("ride:status", ride_view(&body))]),
            ReadPath::Presence => BTreeMap::from([("ride:participants", names(&body["participants"]))]),
            _ => BTreeMap::from([("ride:location", body["lat"].clone())]),
        };
        Output { views, text, ..Output::default() }
    }
}

fn names(participants: &Value) -> Value {
    let names: BTreeSet<_> =
        participants.as_array().unwrap().iter().map(|entry| entry["userId"].as_str().unwrap()).collect();
    json!(names)
}

fn receipts(of: &Value) -> BTreeMap<&'static str, Value> {
    let mut receipts = of["receipts"].as_array().unwrap().clone();
    receipts.sort_by_key(|receipt| receipt["userId"].to_string());
    let watermarks =
        |name: &str| receipts.iter().map(|receipt| json!([receipt["userId"], receipt[name]])).collect::<Vec<_>>();
    BTreeMap::from([
        ("message:read", json!(watermarks("readSeq"))),
        ("message:delivered", json!(watermarks("deliveredSeq"))),
    ])
}

fn message_views(messages: &[Value]) -> BTreeMap<&'static str, Value> {
    let output: Vec<_> = messages
        .iter()
        .map(|message| {
            let reactions = message["reactions"].as_array().unwrap().iter();
            (
                message["id"].as_str().unwrap().to_owned(),
                message["content"].clone(),
                !message["deletedAt"].is_null(),
                reactions.map(|reaction| reaction["emoji"].as_str().unwrap().to_owned()).collect(),
                message["labels"].clone(),
            )
        })
        .collect();
    views_of_messages(&output)
}

/// Returns what a reader's live streams have received.
fn live(reader: &Reader, events: &[Event]) -> Output {
    let mut typed: BTreeMap<&str, usize> = BTreeMap::new();
    for user in ["rider_1"].iter().chain(&DRIVERS).collect::<BTreeSet<_>>() {
        let times = events.iter().filter(|event| is_typing(event, user)).count();
        if times > 0 {
            typed.insert(*user, times);
        }
    }
    let mut lats: Vec<Value> = Vec::new();
    for event in events.iter().filter(|event| event.kind == "ride:location") {
        if !lats.contains(&event.data["lat"]) {
            lats.push(event.data["lat"].clone());
        }
    }
    let drivers = |kind: &str, field: &str| {
        let names = events.iter().filter(|event| event.kind == kind).filter_map(|event| event.data[field].as_str());
        names.filter(|name| name.starts_with("driver_")).map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let others = events.iter().flat_map(online).filter(|name| DRIVERS.contains(name) && *name != reader.user.name);
    let views = BTreeMap::from([
        ("typing:indicator", json!(typed)),
        ("ride:location", json!(lats)),
        ("presence:online", json!(others.collect::<BTreeSet<_>>())),
        ("presence:offline", json!(drivers("presence:offline", "userId"))),
        ("driver:availability", json!(drivers("driver:availability", "driverId"))),
    ]);
    Output { views, ..of_events(events) }
}
