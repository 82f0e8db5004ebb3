//! The ways out of a server, and what a reader finds by each.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::live::{is_typing, online};
use super::oracle::{Oracle, key, ride_view, views_of_messages};
use super::world::{DRIVERS, RIDE, Reader, World};
use super::{Place, Shown, place};
use crate::support::{Event, Stream, User, eventually};

/// After how long an event that has not come is missing: only where a test fails.
const MISSING: Duration = Duration::from_secs(45);

/// A way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// A replay of the ride.
    Stream,
    Poll,
    MergedStream,
    MergedPoll,
    /// A stream of the ride, by a ticket for it, or for everything; and the merged stream.
    TicketForRide,
    TicketForAll,
    TicketMerged,
    /// Streams that were open all the while.
    LiveStream,
    LiveMerged,
    /// The `state` of a stream, a poll, and a merged poll.
    StreamState,
    PollState,
    MergedState,
    History,
    /// `GET /messages/{id}`, of each message.
    Message,
    Unread,
    UnreadAll,
    List,
    Ride,
    Presence,
    Location,
    Feed,
}

impl Way {
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

    /// Whether it shows messages as they are now.
    pub(crate) fn is_of_now(self) -> bool {
        matches!(self, Self::History | Self::Message | Self::List)
    }

    /// Whether the ride is on it: on a merged stream only that of a participant.
    pub(crate) fn has_ride_of(self, reader: &Reader) -> bool {
        self != Self::Feed && !(self.is_merged() && reader.is_staff())
    }
}

/// What of a stream's or poll's events is durable: by type and key.
fn durable(kind: &str, data: &Value, events: &mut Vec<(String, String)>) {
    if kind.starts_with("stream:")
        || kind == "auth:expired"
        || [Place::RideValue, Place::Drivers].contains(&place(kind))
    {
        return;
    }
    events.push((kind.to_owned(), key(kind, data)));
}

fn of_events(events: &[Event]) -> Shown {
    let mut shown = Shown::default();
    for event in events {
        shown.text.push_str(&event.text);
        shown.text.push('\n');
        durable(&event.kind, &event.data, &mut shown.events);
    }
    shown
}

impl World {
    /// Takes a way out.
    pub(crate) async fn take(&self, way: Way, reader: &Reader, oracle: &Oracle) -> Shown {
        let user = &reader.user;
        let of_ride = format!("messages/rides/{RIDE}");
        match way {
            Way::Stream | Way::StreamState => {
                let request = user.request(Method::GET, &format!("{of_ride}/events?after=0"));
                self.stream(way, reader, request, oracle).await
            }
            Way::MergedStream => self.stream(way, reader, user.request(Method::GET, "events?after=0"), oracle).await,
            Way::TicketForRide | Way::TicketForAll | Way::TicketMerged => {
                let body = if way == Way::TicketForRide { json!({ "rideId": RIDE }) } else { json!({}) };
                let answer = user.post("stream-tickets", body).await;
                if answer.status != 201 {
                    return Shown::refused(answer.status.as_u16(), answer.text());
                }
                let ticket = answer.json()["ticket"].as_str().unwrap().to_owned();
                let path = if way == Way::TicketMerged { "events".to_owned() } else { format!("{of_ride}/events") };
                let request =
                    user.clone().with_token("").request(Method::GET, &format!("{path}?after=0&ticket={ticket}"));
                self.stream(way, reader, request, oracle).await
            }
            Way::Poll => self.polled(user, &format!("{of_ride}/poll?after=0&wait=0")).await,
            Way::MergedPoll => self.polled(user, "poll?after=0&wait=0").await,
            Way::Feed => self.feed(user).await,
            Way::LiveMerged => live(reader, &self.live_merged[reader.label].events()),
            Way::LiveStream => {
                let streams = self.live_ride.iter().filter(|(label, ..)| *label == reader.label);
                live(reader, &streams.flat_map(|(.., live)| live.events()).collect::<Vec<_>>())
            }
            Way::PollState => {
                let answer = user.get(&format!("{of_ride}/poll?after=0&wait=0")).await;
                if answer.status != 200 {
                    return Shown::refused(answer.status.as_u16(), answer.text());
                }
                self.state(&answer.json()["state"])
            }
            Way::MergedState => {
                let state = user.get("poll?after=0&wait=0").await.expect(200).json()["state"].clone();
                // Of somebody who has left it, the ride may be there as they left it, or not at all.
                let mut shown = match state["rides"].get(RIDE) {
                    Some(state) => self.state(state),
                    None if reader.is_staff() || !oracle.has_left(reader) => Shown::default(),
                    None => oracle.expected(way, reader),
                };
                let drivers = state["drivers"]
                    .as_array()
                    .map(|drivers| drivers.iter().map(|one| &one["driverId"]).collect::<Vec<_>>());
                shown.views.insert("driver:availability", json!(drivers));
                shown.text = state.to_string();
                shown
            }
            Way::Message => self.messages(user, oracle).await,
            Way::History | Way::Unread | Way::UnreadAll | Way::List | Way::Ride | Way::Presence | Way::Location => {
                self.present(way, user).await
            }
        }
    }

    /// Reads a stream to its end, or to the last events that there are for its reader.
    async fn stream(&self, way: Way, reader: &Reader, request: reqwest::RequestBuilder, oracle: &Oracle) -> Shown {
        let mut stream = Stream::open(request).await;
        if stream.status != 200 {
            return Shown::refused(stream.status.as_u16(), String::new());
        }
        if way == Way::StreamState {
            return self.state(&stream.next_sync().await["state"]);
        }
        let mut missing = oracle.expected(way, reader).events.len();
        let mut events = Vec::new();
        // One that ends by itself is read to its end. What does not come at all is missing.
        while missing > 0 || (oracle.has_left(reader) && !way.is_merged()) {
            let Ok(Some(event)) = timeout(MISSING, stream.try_next()).await else { break };
            let mut one = Vec::new();
            durable(&event.kind, &event.data, &mut one);
            missing = missing.saturating_sub(one.len());
            events.push(event);
        }
        of_events(&events)
    }

    async fn polled(&self, user: &User, path: &str) -> Shown {
        // One response holds all that there is, unless something was committed just then: a poll that goes on would acknowledge
        // delivery, and so write to the log.
        let answer = eventually("a whole page", async || {
            let answer = user.get(path).await;
            (answer.status != 200 || answer.json()["hasMore"] == false).then_some(answer)
        })
        .await;
        if answer.status != 200 {
            return Shown::refused(answer.status.as_u16(), answer.text());
        }
        let page = answer.json();
        let mut shown = Shown { text: answer.text(), ..Shown::default() };
        for event in page["events"].as_array().unwrap() {
            durable(event["type"].as_str().unwrap(), &event["data"], &mut shown.events);
        }
        shown
    }

    async fn feed(&self, user: &User) -> Shown {
        let mut shown = Shown::default();
        let (mut cursor, mut is_undelivered) = ("0".to_owned(), false);
        loop {
            let answer = user.get(&format!("feed/poll?after={cursor}&wait=0")).await;
            if answer.status != 200 {
                return Shown::refused(answer.status.as_u16(), answer.text());
            }
            let page = answer.json();
            shown.text.push_str(&answer.text());
            for event in page["events"].as_array().unwrap() {
                let kind = event["type"].as_str().unwrap();
                // How many there are depends on the time.
                if kind == "message:undelivered" {
                    is_undelivered = true;
                    continue;
                }
                durable(kind, &event["data"]["data"], &mut shown.events);
            }
            cursor = page["cursor"].as_str().unwrap().to_owned();
            if page["hasMore"] == false {
                break;
            }
        }
        shown.views.insert("message:undelivered", json!(is_undelivered));
        shown
    }

    fn state(&self, state: &Value) -> Shown {
        let mut views = receipts(state);
        views.insert("ride:participants", names(&state["participants"]));
        views.insert("ride:status", ride_view(&state["ride"]));
        views.insert("ride:location", state["location"]["lat"].clone());
        let there = names(&state["participants"]);
        let typists = state["typing"].as_array().unwrap();
        let are_there = typists.iter().all(|typist| there.as_array().unwrap().contains(typist));
        let typing = if are_there { json!("nobody who is not there") } else { state["typing"].clone() };
        views.insert("typing:indicator", typing);
        Shown { views, text: state.to_string(), ..Shown::default() }
    }

    async fn messages(&self, user: &User, oracle: &Oracle) -> Shown {
        let (mut found, mut text) = (Vec::new(), String::new());
        for id in oracle.message_ids() {
            let answer = user.get(&format!("messages/{id}")).await;
            text.push_str(&answer.text());
            if answer.status == 200 {
                found.push(answer.json());
            } else {
                answer.problem(404, "message_not_found");
            }
        }
        Shown { views: shown_messages(&found), text, ..Shown::default() }
    }

    /// What the ride is now.
    async fn present(&self, way: Way, user: &User) -> Shown {
        let of_ride = format!("messages/rides/{RIDE}");
        let path = match way {
            Way::History => format!("{of_ride}?limit=200"),
            Way::Unread => format!("{of_ride}/unread-count"),
            Way::UnreadAll => "messages/unread-count".to_owned(),
            Way::List => "rides".to_owned(),
            Way::Ride => format!("rides/{RIDE}"),
            Way::Presence => format!("{of_ride}/presence"),
            _ => format!("rides/{RIDE}/location"),
        };
        let answer = user.get(&path).await;
        if answer.status != 200 {
            return Shown::refused(answer.status.as_u16(), answer.text());
        }
        let (body, text) = (answer.json(), answer.text());
        let count = |count: &Value| {
            let kinds = ["message:new", "message:deleted", "message:read"];
            kinds.into_iter().map(|kind| (kind, count.clone())).collect::<BTreeMap<_, _>>()
        };
        let views = match way {
            Way::History => {
                let mut views = shown_messages(body["messages"].as_array().unwrap());
                views.extend(receipts(&body));
                views.insert("ride:participants", names(&body["participants"]));
                views
            }
            Way::Unread => count(&body["unreadCount"]),
            Way::UnreadAll => count(&body["total"]),
            Way::List => match body["rides"].as_array().unwrap().first() {
                Some(ride) => {
                    let mut views = count(&ride["unreadCount"]);
                    views.insert("message:edited", ride["lastMessage"]["content"].clone());
                    views.insert("message:reaction", ride["lastMessage"]["id"].clone());
                    views.insert("ride:status", ride_view(ride));
                    views
                }
                None => BTreeMap::new(),
            },
            Way::Ride => BTreeMap::from([("ride:status", ride_view(&body))]),
            Way::Presence => BTreeMap::from([("ride:participants", names(&body["participants"]))]),
            _ => BTreeMap::from([("ride:location", body["lat"].clone())]),
        };
        Shown { views, text, ..Shown::default() }
    }
}

fn names(people: &Value) -> Value {
    let names: BTreeSet<_> = people.as_array().unwrap().iter().map(|one| one["userId"].as_str().unwrap()).collect();
    json!(names)
}

fn receipts(of: &Value) -> BTreeMap<&'static str, Value> {
    let mut receipts = of["receipts"].as_array().unwrap().clone();
    receipts.sort_by_key(|receipt| receipt["userId"].to_string());
    let marks = |name: &str| receipts.iter().map(|one| json!([one["userId"], one[name]])).collect::<Vec<_>>();
    BTreeMap::from([("message:read", json!(marks("readSeq"))), ("message:delivered", json!(marks("deliveredSeq")))])
}

fn shown_messages(messages: &[Value]) -> BTreeMap<&'static str, Value> {
    let shown: Vec<_> = messages
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
    views_of_messages(&shown)
}

/// What streams have received that were open all the while.
fn live(reader: &Reader, events: &[Event]) -> Shown {
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
    Shown { views, ..of_events(events) }
}
