//! What each reader should find, computed from the logs alone.
//!
//! The rules, of which this file has nothing else: a participant has the intervals that `ride:participants` events begin (`joined`)
//! and end (`left`), both ends included; staff has everything. An event is a reader's if its seq lies in one of the intervals, and
//! so does the seq of the message that it concerns. What is shown of a ride as it is now is for those who are on it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::ways::Way;
use super::world::{DRIVERS, RIDE, Reader, World, lat};
use super::{Place, Shown, place};
use crate::support::Role;

/// An event of a log.
#[derive(Debug, Clone)]
pub(crate) struct Logged {
    pub(crate) seq: i64,
    pub(crate) kind: String,
    pub(crate) data: Value,
}

/// A message as the log's events make it.
#[derive(Debug, Clone)]
struct Message {
    id: String,
    seq: i64,
    sender: String,
    content: Value,
    reactions: Vec<String>,
    is_deleted: bool,
    is_flagged: bool,
}

/// The logs.
pub(crate) struct Oracle {
    ride: Vec<Logged>,
    users: BTreeMap<String, Vec<Logged>>,
    messages: Vec<Message>,
    said: BTreeMap<String, String>,
    /// After which positions each reader's streams of the ride began.
    began: Vec<(&'static str, i64)>,
}

/// What names an event wherever it is found: of a message, which a deletion changes in the log, its id.
pub(crate) fn key(kind: &str, data: &Value) -> String {
    match kind {
        "message:new" => format!("{kind} {}", data["id"]),
        "message:edited" => format!("{kind} {} {}", data["id"], data["content"]),
        "message:flagged" => format!("{kind} {}", data["messageId"]),
        _ => format!("{kind} {data}"),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Oracle {
    pub(crate) async fn of(world: &World) -> Self {
        let client = world.database.client().await;
        let query = "select topic, seq, type, data::text from events order by topic, seq";
        let (mut ride, mut users) = (Vec::new(), BTreeMap::<_, Vec<_>>::new());
        for row in client.query(query, &[]).await.unwrap() {
            let data = serde_json::from_str(row.get(3)).unwrap();
            let event = Logged { seq: row.get(1), kind: row.get::<_, &str>(2).to_owned(), data };
            match row.get::<_, &str>(0).split_once('/').unwrap() {
                ("ride", RIDE) => ride.push(event),
                ("user", user) => users.entry(user.to_owned()).or_default().push(event),
                other => panic!("{other:?}"),
            }
        }
        let said = world.said.clone();
        let messages = messages(&ride, &said);
        let began = world.live_ride.iter().map(|(label, after, _)| (*label, *after)).collect();
        Self { ride, users, messages, said, began }
    }

    fn intervals(&self, user: &str) -> Vec<(i64, Option<i64>)> {
        let mut intervals: Vec<(i64, Option<i64>)> = Vec::new();
        for event in self.ride.iter().filter(|event| event.kind == "ride:participants") {
            let names = |list: &str| event.data[list].as_array().unwrap().iter().any(|one| one["userId"] == user);
            if names("left") {
                intervals.last_mut().unwrap().1 = Some(event.seq);
            }
            if names("joined") {
                intervals.push((event.seq, None));
            }
        }
        intervals
    }

    fn parts(&self, reader: &Reader) -> Vec<(i64, Option<i64>)> {
        if reader.is_staff() { vec![(1, None)] } else { self.intervals(&reader.user.name) }
    }

    /// Whether the reader is on the ride now, or staff.
    fn is_admitted(&self, reader: &Reader) -> bool {
        self.parts(reader).last().is_some_and(|(_, until)| until.is_none())
    }

    /// Whether the reader was on the ride, and is no longer.
    pub(crate) fn has_left(&self, reader: &Reader) -> bool {
        self.was_there(reader) && !self.is_admitted(reader)
    }

    /// All messages, whoever may see them.
    pub(crate) fn message_ids(&self) -> impl Iterator<Item = &str> {
        self.messages.iter().map(|message| message.id.as_str())
    }

    /// Whether the reader was on the ride at all.
    fn was_there(&self, reader: &Reader) -> bool {
        !self.parts(reader).is_empty()
    }

    fn has(&self, reader: &Reader, seq: i64) -> bool {
        self.parts(reader).iter().any(|(from, until)| *from <= seq && until.is_none_or(|until| seq <= until))
    }

    /// The seq of the message that an event concerns.
    fn about(&self, event: &Logged) -> Option<i64> {
        let id = match event.kind.as_str() {
            "message:edited" => &event.data["id"],
            "message:deleted" | "message:reaction" | "message:read" | "message:delivered" => &event.data["messageId"],
            _ => return None,
        };
        Some(self.messages.iter().find(|message| message.id == text(id)).expect("a message").seq)
    }

    fn sees(&self, reader: &Reader, event: &Logged) -> bool {
        self.has(reader, event.seq) && self.about(event).is_none_or(|seq| self.has(reader, seq))
    }

    fn present(&self, at: i64) -> BTreeSet<String> {
        let mut present = BTreeSet::new();
        for event in self.ride.iter().filter(|event| event.kind == "ride:participants" && event.seq <= at) {
            for left in event.data["left"].as_array().unwrap() {
                present.remove(&text(&left["userId"]));
            }
            present.extend(event.data["joined"].as_array().unwrap().iter().map(|joined| text(&joined["userId"])));
        }
        present
    }

    fn head(&self) -> i64 {
        self.ride.last().unwrap().seq
    }

    /// The driver's time that is now.
    fn time(&self) -> usize {
        let begun = self.ride.iter().filter(|event| event.kind == "ride:participants");
        begun.filter(|event| event.data["joined"].as_array().unwrap().iter().any(|one| one["role"] == "driver")).count()
            - 1
    }

    /// The interval of each time of a driver.
    fn times(&self) -> Vec<(i64, i64)> {
        let mut of: BTreeMap<&str, usize> = BTreeMap::new();
        let all = DRIVERS.iter().take(self.time() + 1).map(|driver| {
            let number = of.entry(*driver).or_default();
            let (from, until) = self.intervals(driver)[*number];
            *number += 1;
            (from, until.unwrap_or(self.head()))
        });
        all.collect()
    }

    /// Each type that can happen again and again does in each time, and events about messages concern those of each time before.
    pub(crate) fn has_everything(&self) {
        let times = self.times();
        let is_in = |seq: i64, time: usize| times[time].0 <= seq && seq <= times[time].1;
        for kind in ridewire::domain::EventType::ALL {
            let kind = kind.as_str();
            let is_there = |time| self.ride.iter().any(|event| event.kind == kind && is_in(event.seq, time));
            if place(kind) == Place::RideOften {
                assert!((0..times.len()).all(is_there), "no {kind} in some time");
            }
            let is_final = self.ride.iter().any(|event| event.kind == "ride:cancel");
            let of_users = self.users.values().flatten().any(|event| event.kind == kind);
            match place(kind) {
                Place::Ride if is_final => assert!(self.ride.iter().any(|event| event.kind == kind), "no {kind}"),
                Place::Both if is_final => assert!(of_users && self.ride.iter().any(|event| event.kind == kind)),
                Place::User => assert!(of_users, "no {kind}"),
                _ => {}
            }
        }
        for kind in ["message:edited", "message:deleted", "message:reaction", "message:read", "message:delivered"] {
            for time in 0..times.len() {
                for before in 0..=time {
                    let concerns = |event: &Logged| is_in(self.about(event).unwrap(), before);
                    let found =
                        self.ride.iter().any(|event| event.kind == kind && is_in(event.seq, time) && concerns(event));
                    assert!(found, "no {kind} in time {time} about a message of time {before}");
                }
            }
        }
    }

    /// What a watermark says to a reader: the last message of somebody else than its owner, up to it, that the reader may see.
    fn shown_mark(&self, reader: &Reader, owner: &str, mark: i64) -> i64 {
        let others = self.messages.iter().filter(|message| message.seq <= mark && message.sender != owner);
        others.map(|message| message.seq).filter(|seq| self.has(reader, *seq)).max().unwrap_or(0)
    }

    /// How far somebody has received and read.
    fn marks(&self, owner: &str) -> (i64, i64) {
        let last = |kinds: &[&str]| {
            let of =
                self.ride.iter().filter(|event| kinds.contains(&event.kind.as_str()) && event.data["userId"] == owner);
            of.filter_map(|event| event.data["seq"].as_i64()).max().unwrap_or(0)
        };
        (last(&["message:delivered", "message:read"]), last(&["message:read"]))
    }

    /// Watermarks as a reader is shown them: of those who are there; and of support, where the reader may see any of it.
    fn receipts(&self, reader: &Reader) -> Vec<(String, i64, i64)> {
        let owners =
            self.ride.iter().filter(|event| ["message:read", "message:delivered"].contains(&event.kind.as_str()));
        let support = owners.map(|event| text(&event.data["userId"])).filter(|owner| owner.starts_with("support"));
        let there = self.present(self.head());
        let shown = |owner: String| {
            let (delivered, read) = self.marks(&owner);
            let shown = |mark| self.shown_mark(reader, &owner, mark);
            (owner.clone(), shown(delivered), shown(read))
        };
        let is_shown = |mark: &(String, i64, i64)| there.contains(&mark.0) || mark.1 > 0;
        let all: BTreeSet<_> = there.iter().cloned().chain(support).map(shown).filter(is_shown).collect();
        all.into_iter().collect()
    }

    /// The ride as the last event up to a position has it: status, driver, and the policy's grace.
    fn ride_at(&self, at: i64) -> Value {
        let last = self.ride.iter().rfind(|event| event.seq <= at && event.data["ride"].is_object()).unwrap();
        ride_view(&last.data["ride"])
    }

    /// Words of events of a type that this way must not show to this reader.
    pub(crate) fn forbidden_words(&self, kind: &str, way: Way, reader: &Reader) -> Vec<String> {
        let follows = way.has_ride_of(reader);
        let all = way == Way::Feed && reader.user.role == Role::Service;
        let is_now = way.is_of_now();
        let mut words = Vec::new();
        // Where a ride is shown as it is now, all of a message that the reader may see is shown as it is now.
        let allowed = |event: &Logged| {
            let of_now = is_now && self.about(event).is_some_and(|seq| self.has(reader, seq));
            all || follows && (self.sees(reader, event) || of_now)
        };
        for event in self.ride.iter().filter(|event| event.kind == kind) {
            match kind {
                "message:new" => {
                    let message = self.messages.iter().find(|one| one.seq == event.seq).unwrap();
                    let is_erased = message.is_deleted && !way.is_live();
                    if is_erased || !allowed(event) {
                        words.push(self.said[&message.id].clone());
                    }
                }
                "message:edited" if !allowed(event) => words.push(text(&event.data["content"])),
                "message:reaction" if !allowed(event) => words.push(text(&event.data["emoji"])),
                "message:read" | "message:delivered" => {
                    let owner = text(&event.data["userId"]);
                    // The state and the history show watermarks.
                    let is_shown = (way.is_live() || self.is_admitted(reader))
                        && follows
                        && self.receipts(reader).iter().any(|(name, ..)| *name == owner);
                    if owner.starts_with("support_") && !allowed(event) && !is_shown {
                        words.push(format!("\"{owner}\""));
                    }
                }
                "ride:cancel" | "ride:reopened" if !allowed(event) => words.push(text(&event.data["reason"])),
                _ => {}
            }
        }
        match kind {
            "notice" => {
                for (user, log) in &self.users {
                    let is_own = *user == reader.user.name && way.is_merged();
                    let notices = log.iter().filter(|event| event.kind == "notice" && !is_own && !all);
                    words.extend(notices.map(|event| text(&event.data["data"]["word"])));
                }
            }
            "ride:location" => {
                for (time, (from, _)) in self.times().iter().enumerate() {
                    let was_there = way.is_live() && self.has(reader, *from) && self.is_in_time(reader, time);
                    let is_there = time == self.time() && self.is_admitted(reader);
                    if !(follows && (was_there || is_there)) {
                        words.push(lat(time).to_string());
                    }
                }
            }
            "message:flagged" if !(all || reader.is_staff() && is_now) => words.push("oddity_label".to_owned()),
            _ => {}
        }
        words
    }

    /// What this way should show to this reader.
    pub(crate) fn expected(&self, way: Way, reader: &Reader) -> Shown {
        let admitted = self.is_admitted(reader);
        let refused = |status| Shown::refused(status, String::new());
        match way {
            Way::Feed if reader.user.role != Role::Service => refused(403),
            Way::Stream | Way::Poll | Way::TicketForAll | Way::StreamState | Way::PollState
                if !self.was_there(reader) =>
            {
                refused(404)
            }
            Way::TicketForRide | Way::History | Way::Unread | Way::Ride | Way::Presence | Way::Location
                if !admitted =>
            {
                refused(404)
            }
            Way::Stream | Way::Poll | Way::TicketForRide | Way::TicketForAll => {
                Shown { events: self.of_ride(reader, |_| true), ..Shown::default() }
            }
            Way::MergedStream | Way::MergedPoll | Way::TicketMerged => {
                Shown { events: self.merged(reader), ..Shown::default() }
            }
            Way::LiveMerged => Shown { events: self.merged(reader), views: self.live(way, reader), ..Shown::default() },
            Way::LiveStream => {
                let mut events = Vec::new();
                for (_, after) in self.began.iter().filter(|(label, _)| *label == reader.label) {
                    let parts = self.parts(reader);
                    let of = parts
                        .iter()
                        .find(|(from, until)| from - 1 <= *after && until.is_none_or(|until| *after < until));
                    let until = of.and_then(|(_, until)| *until).unwrap_or(i64::MAX);
                    events.extend(self.of_ride(reader, |event| event.seq > *after && event.seq <= until));
                }
                Shown { events, views: self.live(way, reader), ..Shown::default() }
            }
            Way::Feed => Shown {
                events: self.feed(),
                views: BTreeMap::from([("message:undelivered", json!(true))]),
                ..Shown::default()
            },
            Way::StreamState | Way::PollState => Shown { views: self.state(reader), ..Shown::default() },
            Way::MergedState => {
                let mut views = if way.has_ride_of(reader) && self.was_there(reader) {
                    self.state(reader)
                } else {
                    BTreeMap::new()
                };
                let drivers = if reader.is_staff() { json!(["driver_never"]) } else { Value::Null };
                views.insert("driver:availability", drivers);
                Shown { views, ..Shown::default() }
            }
            Way::History => {
                let mut views = self.shown_messages(reader);
                views.extend(self.shown_receipts(reader));
                views.insert("ride:participants", json!(self.present(self.head())));
                Shown { views, ..Shown::default() }
            }
            Way::Message => Shown { views: self.shown_messages(reader), ..Shown::default() },
            Way::Unread => Shown { views: counts(self.unread(reader)), ..Shown::default() },
            Way::UnreadAll => {
                let count = if admitted && !reader.is_staff() { self.unread(reader) } else { 0 };
                Shown { views: counts(count), ..Shown::default() }
            }
            Way::List if !admitted => Shown::default(),
            Way::List => {
                let last = self.messages.iter().rfind(|message| self.has(reader, message.seq)).unwrap();
                let mut views = counts(self.unread(reader));
                views.insert("message:edited", last.content.clone());
                views.insert("message:reaction", json!(last.id));
                views.insert("ride:status", self.ride_at(self.head()));
                Shown { views, ..Shown::default() }
            }
            Way::Ride => {
                let views = BTreeMap::from([("ride:status", self.ride_at(self.head()))]);
                Shown { views, ..Shown::default() }
            }
            Way::Presence => {
                let views = BTreeMap::from([("ride:participants", json!(self.present(self.head())))]);
                Shown { views, ..Shown::default() }
            }
            Way::Location => {
                let views = BTreeMap::from([("ride:location", json!(lat(self.time())))]);
                Shown { views, ..Shown::default() }
            }
        }
    }

    fn of_ride(&self, reader: &Reader, is_meant: impl Fn(&Logged) -> bool) -> Vec<(String, String)> {
        let seen = self.ride.iter().filter(|event| self.sees(reader, event) && is_meant(event));
        seen.map(|event| (event.kind.clone(), key(&event.kind, &event.data))).collect()
    }

    fn merged(&self, reader: &Reader) -> Vec<(String, String)> {
        let mut events = if reader.is_staff() { Vec::new() } else { self.of_ride(reader, |_| true) };
        let own = self.users.get(&reader.user.name).into_iter().flatten();
        events.extend(own.map(|event| (event.kind.clone(), key(&event.kind, &event.data))));
        events
    }

    fn feed(&self) -> Vec<(String, String)> {
        let all = self.ride.iter().chain(self.users.values().flatten());
        let all = all.map(|event| (event.kind.clone(), key(&event.kind, &event.data)));
        let flagged = self.messages.iter().filter(|message| message.is_flagged);
        let flagged = flagged.map(|message| {
            let kind = "message:flagged".to_owned();
            let key = key(&kind, &json!({ "messageId": message.id }));
            (kind, key)
        });
        all.chain(flagged).collect()
    }

    /// What was told beside the logs, to those who were there.
    fn live(&self, way: Way, reader: &Reader) -> BTreeMap<&'static str, Value> {
        let name = reader.user.name.as_str();
        let (mut typed, mut lats, mut online) = (BTreeMap::<&str, usize>::new(), Vec::new(), BTreeSet::new());
        for (time, (from, _)) in self.times().iter().enumerate() {
            if !way.has_ride_of(reader) || !self.has(reader, *from) || !self.is_in_time(reader, time) {
                continue;
            }
            lats.push(lat(time));
            for typist in ["rider_1", DRIVERS[time]].into_iter().filter(|typist| *typist != name) {
                *typed.entry(typist).or_default() += 1;
            }
            if DRIVERS[time] != name {
                online.insert(DRIVERS[time]);
            }
        }
        let drivers = if way == Way::LiveMerged && reader.is_staff() { json!(["driver_never"]) } else { json!([]) };
        BTreeMap::from([
            ("typing:indicator", json!(typed)),
            ("ride:location", json!(lats)),
            ("presence:online", json!(online)),
            ("presence:offline", json!([])),
            ("driver:availability", drivers),
        ])
    }

    /// Whether a time is one of the reader's, not only begun by the event that ends theirs.
    fn is_in_time(&self, reader: &Reader, time: usize) -> bool {
        reader.is_staff() || reader.user.name == "rider_1" || DRIVERS[time] == reader.user.name
    }

    fn state(&self, reader: &Reader) -> BTreeMap<&'static str, Value> {
        let left = self.parts(reader).last().and_then(|(_, until)| *until);
        let at = left.unwrap_or(self.head());
        let there = self.present(at);
        let mut views = self.shown_receipts(reader);
        if left.is_some() {
            let none: Vec<_> = there.iter().map(|name| json!([name, 0])).collect();
            views = BTreeMap::from([("message:read", json!(none)), ("message:delivered", json!(none))]);
        }
        views.insert("ride:participants", json!(there));
        views.insert("ride:status", self.ride_at(at));
        views.insert("ride:location", if left.is_some() { Value::Null } else { json!(lat(self.time())) });
        views.insert("typing:indicator", json!("nobody who is not there"));
        views
    }

    fn shown_receipts(&self, reader: &Reader) -> BTreeMap<&'static str, Value> {
        let receipts = self.receipts(reader);
        let delivered: Vec<_> = receipts.iter().map(|(name, delivered, _)| json!([name, delivered])).collect();
        let read: Vec<_> = receipts.iter().map(|(name, _, read)| json!([name, read])).collect();
        BTreeMap::from([("message:read", json!(read)), ("message:delivered", json!(delivered))])
    }

    fn shown_messages(&self, reader: &Reader) -> BTreeMap<&'static str, Value> {
        let is_admitted = self.is_admitted(reader);
        let seen = self.messages.iter().filter(|message| is_admitted && self.has(reader, message.seq));
        let messages: Vec<_> = seen
            .map(|message| {
                let labels =
                    if message.is_flagged && reader.is_staff() { json!(["oddity_label"]) } else { Value::Null };
                (message.id.clone(), message.content.clone(), message.is_deleted, message.reactions.clone(), labels)
            })
            .collect();
        views_of_messages(&messages)
    }

    fn unread(&self, reader: &Reader) -> usize {
        let name = reader.user.name.as_str();
        let read = if reader.user.role == Role::Service { 0 } else { self.marks(name).1 };
        let unread = self.messages.iter().filter(|message| {
            self.has(reader, message.seq) && message.sender != name && !message.is_deleted && message.seq > read
        });
        unread.count()
    }
}

fn counts(count: usize) -> BTreeMap<&'static str, Value> {
    ["message:new", "message:deleted", "message:read"].into_iter().map(|kind| (kind, json!(count))).collect()
}

/// Status, driver and the grace of the policy.
pub(crate) fn ride_view(ride: &Value) -> Value {
    json!([ride["status"], ride["driverId"], ride["chatPolicy"]["graceSeconds"]["rider"]])
}

/// A message as it is shown: id, content, whether it is deleted, reactions, labels.
pub(crate) type ShownMessage = (String, Value, bool, Vec<String>, Value);

/// Views of messages, by the types of events that have made them so.
pub(crate) fn views_of_messages(messages: &[ShownMessage]) -> BTreeMap<&'static str, Value> {
    let ids: Vec<_> = messages.iter().map(|(id, ..)| id).collect();
    let contents: Vec<_> = messages.iter().map(|(id, content, ..)| json!([id, content])).collect();
    let deleted: Vec<_> = messages.iter().filter(|(_, _, is_deleted, ..)| *is_deleted).map(|(id, ..)| id).collect();
    let reactions: Vec<_> = messages.iter().map(|(id, _, _, reactions, _)| json!([id, reactions])).collect();
    let labels: Vec<_> = messages.iter().map(|(id, .., labels)| json!([id, labels])).collect();
    BTreeMap::from([
        ("message:new", json!(ids)),
        ("message:edited", json!(contents)),
        ("message:deleted", json!(deleted)),
        ("message:reaction", json!(reactions)),
        ("message:flagged", json!(labels)),
    ])
}

/// The messages that a ride's events make.
fn messages(ride: &[Logged], said: &BTreeMap<String, String>) -> Vec<Message> {
    let mut messages: Vec<Message> = Vec::new();
    for event in ride {
        let data = &event.data;
        let id = if event.kind == "message:edited" { text(&data["id"]) } else { text(&data["messageId"]) };
        let of = messages.iter_mut().find(|message| message.id == id);
        match (event.kind.as_str(), of) {
            ("message:new", _) => {
                let id = text(&data["id"]);
                let content = said[&id].clone();
                messages.push(Message {
                    id,
                    seq: event.seq,
                    sender: text(&data["senderId"]),
                    is_flagged: content.contains("odd-"),
                    content: json!(content),
                    reactions: Vec::new(),
                    is_deleted: false,
                });
            }
            ("message:edited", Some(message)) => message.content = data["content"].clone(),
            ("message:deleted", Some(message)) => {
                message.is_deleted = true;
                message.content = Value::Null;
            }
            ("message:reaction", Some(message)) => message.reactions.push(text(&data["emoji"])),
            _ => {}
        }
    }
    messages
}
