//! Computes from the logs alone what each reader must receive.
//!
//! The rules:
//! - A participant has the intervals that `ride:participants` events begin (`joined`) and end (`left`), both included.
//! - Staff (support and service) have one interval without end.
//! - A reader may see an event if its seq, and the seq of the message that the event is about, lie in the reader's intervals.
//! - The current state of a ride is visible to its current participants and to staff.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::fixture::{DRIVERS, Fixture, RIDE, Reader, latitude};
use super::read_paths::ReadPath;
use super::{Output, Scope, scope};
use crate::support::Role;

/// An event of a log.
#[derive(Debug, Clone)]
pub(crate) struct Logged {
    pub(crate) seq: i64,
    pub(crate) kind: String,
    pub(crate) data: Value,
}

/// A message as the events of the log define it.
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

/// The logs and the messages that they define.
pub(crate) struct Oracle {
    ride: Vec<Logged>,
    users: BTreeMap<String, Vec<Logged>>,
    messages: Vec<Message>,
    contents: BTreeMap<String, String>,
    /// The `after` cursors of each reader's live streams of the ride.
    stream_starts: Vec<(&'static str, i64)>,
}

/// Returns a key that identifies an event on each read path. A deletion changes a message's events, so their key has the id.
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
    pub(crate) async fn of(fixture: &Fixture) -> Self {
        let client = fixture.database.client().await;
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
        let contents = fixture.contents.clone();
        let messages = messages(&ride, &contents);
        let stream_starts = fixture.live_ride.iter().map(|(label, after, _)| (*label, *after)).collect();
        Self { ride, users, messages, contents, stream_starts }
    }

    fn intervals(&self, user: &str) -> Vec<(i64, Option<i64>)> {
        let mut intervals: Vec<(i64, Option<i64>)> = Vec::new();
        for event in self.ride.iter().filter(|event| event.kind == "ride:participants") {
            let names = |list: &str| event.data[list].as_array().unwrap().iter().any(|entry| entry["userId"] == user);
            if names("left") {
                intervals.last_mut().unwrap().1 = Some(event.seq);
            }
            if names("joined") {
                intervals.push((event.seq, None));
            }
        }
        intervals
    }

    fn reader_intervals(&self, reader: &Reader) -> Vec<(i64, Option<i64>)> {
        if reader.is_staff() { vec![(1, None)] } else { self.intervals(&reader.user.name) }
    }

    /// Returns whether the reader is a current participant or staff.
    fn has_access(&self, reader: &Reader) -> bool {
        self.reader_intervals(reader).last().is_some_and(|(_, until)| until.is_none())
    }

    /// Returns whether the reader was a participant and is no longer.
    pub(crate) fn has_lost_access(&self, reader: &Reader) -> bool {
        self.had_access(reader) && !self.has_access(reader)
    }

    /// Returns the ids of all messages.
    pub(crate) fn message_ids(&self) -> impl Iterator<Item = &str> {
        self.messages.iter().map(|message| message.id.as_str())
    }

    /// Returns whether the reader has ever been a participant, or is staff.
    fn had_access(&self, reader: &Reader) -> bool {
        !self.reader_intervals(reader).is_empty()
    }

    fn can_see_seq(&self, reader: &Reader, seq: i64) -> bool {
        self.reader_intervals(reader).iter().any(|(from, until)| *from <= seq && until.is_none_or(|until| seq <= until))
    }

    /// Returns the seq of the message that an event is about.
    fn target_seq(&self, event: &Logged) -> Option<i64> {
        let id = match event.kind.as_str() {
            "message:edited" => &event.data["id"],
            "message:deleted" | "message:reaction" | "message:read" | "message:delivered" => &event.data["messageId"],
            _ => return None,
        };
        Some(self.messages.iter().find(|message| message.id == text(id)).expect("a message").seq)
    }

    fn can_see(&self, reader: &Reader, event: &Logged) -> bool {
        self.can_see_seq(reader, event.seq) && self.target_seq(event).is_none_or(|seq| self.can_see_seq(reader, seq))
    }

    fn participants_at(&self, at: i64) -> BTreeSet<String> {
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

    /// Returns the index of the current driver assignment.
    fn current_assignment(&self) -> usize {
        let begun = self.ride.iter().filter(|event| event.kind == "ride:participants");
        begun
            .filter(|event| event.data["joined"].as_array().unwrap().iter().any(|entry| entry["role"] == "driver"))
            .count()
            - 1
    }

    /// Returns the interval of each driver assignment.
    fn assignments(&self) -> Vec<(i64, i64)> {
        let mut of: BTreeMap<&str, usize> = BTreeMap::new();
        let all = DRIVERS.iter().take(self.current_assignment() + 1).map(|driver| {
            let number = of.entry(*driver).or_default();
            let (from, until) = self.intervals(driver)[*number];
            *number += 1;
            (from, until.unwrap_or(self.head()))
        });
        all.collect()
    }

    /// Asserts that each repeatable type occurs in each assignment, and that each assignment has events about all earlier messages.
    pub(crate) fn assert_complete(&self) {
        let assignments = self.assignments();
        let is_in = |seq: i64, assignment: usize| assignments[assignment].0 <= seq && seq <= assignments[assignment].1;
        for kind in ridewire::domain::EventType::ALL {
            let kind = kind.as_str();
            let occurs = |assignment| self.ride.iter().any(|event| event.kind == kind && is_in(event.seq, assignment));
            if scope(kind) == Scope::RideEachAssignment {
                assert!((0..assignments.len()).all(occurs), "no {kind} in an assignment");
            }
            let is_final = self.ride.iter().any(|event| event.kind == "ride:cancel");
            let of_users = self.users.values().flatten().any(|event| event.kind == kind);
            match scope(kind) {
                Scope::Ride if is_final => assert!(self.ride.iter().any(|event| event.kind == kind), "no {kind}"),
                Scope::RideAndUser if is_final => assert!(of_users && self.ride.iter().any(|event| event.kind == kind)),
                Scope::User => assert!(of_users, "no {kind}"),
                _ => {}
            }
        }
        for kind in ["message:edited", "message:deleted", "message:reaction", "message:read", "message:delivered"] {
            for assignment in 0..assignments.len() {
                for before in 0..=assignment {
                    let concerns = |event: &Logged| is_in(self.target_seq(event).unwrap(), before);
                    let found = self
                        .ride
                        .iter()
                        .any(|event| event.kind == kind && is_in(event.seq, assignment) && concerns(event));
                    assert!(found, "no {kind} in assignment {assignment} about a message of assignment {before}");
                }
            }
        }
    }

    /// Returns the watermark as a reader sees it: the last visible message up to it that its owner has not sent.
    fn visible_watermark(&self, reader: &Reader, owner: &str, watermark: i64) -> i64 {
        let others = self.messages.iter().filter(|message| message.seq <= watermark && message.sender != owner);
        others.map(|message| message.seq).filter(|seq| self.can_see_seq(reader, *seq)).max().unwrap_or(0)
    }

    /// Returns a user's delivered and read watermarks.
    fn watermarks(&self, owner: &str) -> (i64, i64) {
        let last = |kinds: &[&str]| {
            let of =
                self.ride.iter().filter(|event| kinds.contains(&event.kind.as_str()) && event.data["userId"] == owner);
            of.filter_map(|event| event.data["seq"].as_i64()).max().unwrap_or(0)
        };
        (last(&["message:delivered", "message:read"]), last(&["message:read"]))
    }

    /// Returns the watermarks that a reader sees: those of current participants, and support's where it is not 0 for the reader.
    fn visible_receipts(&self, reader: &Reader) -> Vec<(String, i64, i64)> {
        let owners =
            self.ride.iter().filter(|event| ["message:read", "message:delivered"].contains(&event.kind.as_str()));
        let support = owners.map(|event| text(&event.data["userId"])).filter(|owner| owner.starts_with("support"));
        let participants = self.participants_at(self.head());
        let shown = |owner: String| {
            let (delivered, read) = self.watermarks(&owner);
            let visible = |watermark| self.visible_watermark(reader, &owner, watermark);
            (owner.clone(), visible(delivered), visible(read))
        };
        let is_visible = |receipt: &(String, i64, i64)| participants.contains(&receipt.0) || receipt.1 > 0;
        let all: BTreeSet<_> = participants.iter().cloned().chain(support).map(shown).filter(is_visible).collect();
        all.into_iter().collect()
    }

    /// Returns the ride's view at a log position.
    fn ride_at(&self, at: i64) -> Value {
        let last = self.ride.iter().rfind(|event| event.seq <= at && event.data["ride"].is_object()).unwrap();
        ride_view(&last.data["ride"])
    }

    /// Returns the texts of events of a type that this read path must not return to this reader.
    pub(crate) fn forbidden_words(&self, kind: &str, via: ReadPath, reader: &Reader) -> Vec<String> {
        let includes_ride = via.includes_ride_for(reader);
        let all = via == ReadPath::Feed && reader.user.role == Role::Service;
        let is_current = via.shows_current_messages();
        let mut words = Vec::new();
        // A path of current messages returns the current state of every message that the reader may see.
        let allowed = |event: &Logged| {
            let is_current_message =
                is_current && self.target_seq(event).is_some_and(|seq| self.can_see_seq(reader, seq));
            all || includes_ride && (self.can_see(reader, event) || is_current_message)
        };
        for event in self.ride.iter().filter(|event| event.kind == kind) {
            match kind {
                "message:new" => {
                    let message = self.messages.iter().find(|message| message.seq == event.seq).unwrap();
                    let is_erased = message.is_deleted && !via.is_live();
                    if is_erased || !allowed(event) {
                        words.push(self.contents[&message.id].clone());
                    }
                }
                "message:edited" if !allowed(event) => words.push(text(&event.data["content"])),
                "message:reaction" if !allowed(event) => words.push(text(&event.data["emoji"])),
                "message:read" | "message:delivered" => {
                    let owner = text(&event.data["userId"]);
                    // `state` and the history contain watermarks.
                    let is_visible = (via.is_live() || self.has_access(reader))
                        && includes_ride
                        && self.visible_receipts(reader).iter().any(|(name, ..)| *name == owner);
                    if owner.starts_with("support_") && !allowed(event) && !is_visible {
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
                    let is_own = *user == reader.user.name && via.is_merged();
                    let notices = log.iter().filter(|event| event.kind == "notice" && !is_own && !all);
                    words.extend(notices.map(|event| text(&event.data["data"]["word"])));
                }
            }
            "ride:location" => {
                for (assignment, (from, _)) in self.assignments().iter().enumerate() {
                    let was_assigned =
                        via.is_live() && self.can_see_seq(reader, *from) && self.is_assigned(reader, assignment);
                    let is_current = assignment == self.current_assignment() && self.has_access(reader);
                    if !(includes_ride && (was_assigned || is_current)) {
                        words.push(latitude(assignment).to_string());
                    }
                }
            }
            "message:flagged" if !(all || reader.is_staff() && is_current) => words.push("oddity_label".to_owned()),
            _ => {}
        }
        words
    }

    /// Returns what this read path must return to this reader.
    pub(crate) fn expected(&self, via: ReadPath, reader: &Reader) -> Output {
        let has_access = self.has_access(reader);
        let rejected = |status| Output::rejected(status, String::new());
        match via {
            ReadPath::Feed if reader.user.role != Role::Service => rejected(403),
            ReadPath::Stream
            | ReadPath::Poll
            | ReadPath::TicketForAll
            | ReadPath::StreamState
            | ReadPath::PollState
                if !self.had_access(reader) =>
            {
                rejected(404)
            }
            ReadPath::TicketForRide
            | ReadPath::History
            | ReadPath::Unread
            | ReadPath::Ride
            | ReadPath::Presence
            | ReadPath::Location
                if !has_access =>
            {
                rejected(404)
            }
            ReadPath::Stream | ReadPath::Poll | ReadPath::TicketForRide | ReadPath::TicketForAll => {
                Output { events: self.of_ride(reader, |_| true), ..Output::default() }
            }
            ReadPath::MergedStream | ReadPath::MergedPoll | ReadPath::TicketMerged => {
                Output { events: self.merged(reader), ..Output::default() }
            }
            ReadPath::LiveMerged => {
                Output { events: self.merged(reader), views: self.live(via, reader), ..Output::default() }
            }
            ReadPath::LiveStream => {
                let mut events = Vec::new();
                for (_, after) in self.stream_starts.iter().filter(|(label, _)| *label == reader.label) {
                    let parts = self.reader_intervals(reader);
                    let of = parts
                        .iter()
                        .find(|(from, until)| from - 1 <= *after && until.is_none_or(|until| *after < until));
                    let until = of.and_then(|(_, until)| *until).unwrap_or(i64::MAX);
                    events.extend(self.of_ride(reader, |event| event.seq > *after && event.seq <= until));
                }
                Output { events, views: self.live(via, reader), ..Output::default() }
            }
            ReadPath::Feed => Output {
                events: self.feed(),
                views: BTreeMap::from([("message:undelivered", json!(true))]),
                ..Output::default()
            },
            ReadPath::StreamState | ReadPath::PollState => Output { views: self.state(reader), ..Output::default() },
            ReadPath::MergedState => {
                let mut views = if via.includes_ride_for(reader) && self.had_access(reader) {
                    self.state(reader)
                } else {
                    BTreeMap::new()
                };
                let drivers = if reader.is_staff() { json!(["driver_unassigned"]) } else { Value::Null };
                views.insert("driver:availability", drivers);
                Output { views, ..Output::default() }
            }
            ReadPath::History => {
                let mut views = self.message_views(reader);
                views.extend(self.receipt_views(reader));
                views.insert("ride:participants", json!(self.participants_at(self.head())));
                Output { views, ..Output::default() }
            }
            ReadPath::Message => Output { views: self.message_views(reader), ..Output::default() },
            ReadPath::Unread => Output { views: counts(self.unread(reader)), ..Output::default() },
            ReadPath::UnreadAll => {
                let count = if has_access && !reader.is_staff() { self.unread(reader) } else { 0 };
                Output { views: counts(count), ..Output::default() }
            }
            ReadPath::List if !has_access => Output::default(),
            ReadPath::List => {
                let last = self.messages.iter().rfind(|message| self.can_see_seq(reader, message.seq)).unwrap();
                let mut views = counts(self.unread(reader));
                views.insert("message:edited", last.content.clone());
                views.insert("message:reaction", json!(last.id));
                views.insert("ride:status", self.ride_at(self.head()));
                Output { views, ..Output::default() }
            }
            ReadPath::Ride => {
                let views = BTreeMap::from([("ride:status", self.ride_at(self.head()))]);
                Output { views, ..Output::default() }
            }
            ReadPath::Presence => {
                let views = BTreeMap::from([("ride:participants", json!(self.participants_at(self.head())))]);
                Output { views, ..Output::default() }
            }
            ReadPath::Location => {
                let views = BTreeMap::from([("ride:location", json!(latitude(self.current_assignment())))]);
                Output { views, ..Output::default() }
            }
        }
    }

    fn of_ride(&self, reader: &Reader, includes: impl Fn(&Logged) -> bool) -> Vec<(String, String)> {
        let seen = self.ride.iter().filter(|event| self.can_see(reader, event) && includes(event));
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

    /// Returns the latest-only and ephemeral events that a live stream gets while its reader has access.
    fn live(&self, via: ReadPath, reader: &Reader) -> BTreeMap<&'static str, Value> {
        let name = reader.user.name.as_str();
        let (mut typed, mut lats, mut online) = (BTreeMap::<&str, usize>::new(), Vec::new(), BTreeSet::new());
        for (assignment, (from, _)) in self.assignments().iter().enumerate() {
            if !via.includes_ride_for(reader)
                || !self.can_see_seq(reader, *from)
                || !self.is_assigned(reader, assignment)
            {
                continue;
            }
            lats.push(latitude(assignment));
            for typist in ["rider_1", DRIVERS[assignment]].into_iter().filter(|typist| *typist != name) {
                *typed.entry(typist).or_default() += 1;
            }
            if DRIVERS[assignment] != name {
                online.insert(DRIVERS[assignment]);
            }
        }
        let drivers =
            if via == ReadPath::LiveMerged && reader.is_staff() { json!(["driver_unassigned"]) } else { json!([]) };
        BTreeMap::from([
            ("typing:indicator", json!(typed)),
            ("ride:location", json!(lats)),
            ("presence:online", json!(online)),
            ("presence:offline", json!([])),
            ("driver:availability", drivers),
        ])
    }

    /// Returns whether the reader has access during an assignment. The event that begins it may end the reader's interval.
    fn is_assigned(&self, reader: &Reader, assignment: usize) -> bool {
        reader.is_staff() || reader.user.name == "rider_1" || DRIVERS[assignment] == reader.user.name
    }

    fn state(&self, reader: &Reader) -> BTreeMap<&'static str, Value> {
        let left = self.reader_intervals(reader).last().and_then(|(_, until)| *until);
        let at = left.unwrap_or(self.head());
        let participants = self.participants_at(at);
        let mut views = self.receipt_views(reader);
        if left.is_some() {
            let none: Vec<_> = participants.iter().map(|name| json!([name, 0])).collect();
            views = BTreeMap::from([("message:read", json!(none)), ("message:delivered", json!(none))]);
        }
        views.insert("ride:participants", json!(participants));
        views.insert("ride:status", self.ride_at(at));
        views.insert(
            "ride:location",
            if left.is_some() { Value::Null } else { json!(latitude(self.current_assignment())) },
        );
        views.insert("typing:indicator", json!("participants only"));
        views
    }

    fn receipt_views(&self, reader: &Reader) -> BTreeMap<&'static str, Value> {
        let receipts = self.visible_receipts(reader);
        let delivered: Vec<_> = receipts.iter().map(|(name, delivered, _)| json!([name, delivered])).collect();
        let read: Vec<_> = receipts.iter().map(|(name, _, read)| json!([name, read])).collect();
        BTreeMap::from([("message:read", json!(read)), ("message:delivered", json!(delivered))])
    }

    fn message_views(&self, reader: &Reader) -> BTreeMap<&'static str, Value> {
        let has_access = self.has_access(reader);
        let seen = self.messages.iter().filter(|message| has_access && self.can_see_seq(reader, message.seq));
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
        let read = if reader.user.role == Role::Service { 0 } else { self.watermarks(name).1 };
        let unread = self.messages.iter().filter(|message| {
            self.can_see_seq(reader, message.seq) && message.sender != name && !message.is_deleted && message.seq > read
        });
        unread.count()
    }
}

fn counts(count: usize) -> BTreeMap<&'static str, Value> {
    ["message:new", "message:deleted", "message:read"].into_iter().map(|kind| (kind, json!(count))).collect()
}

/// Returns the view of a ride: status, driver, and the grace of its policy.
pub(crate) fn ride_view(ride: &Value) -> Value {
    json!([ride["status"], ride["driverId"], ride["chatPolicy"]["graceSeconds"]["rider"]])
}

/// The view of a message: id, content, whether it is deleted, reactions, labels.
pub(crate) type MessageView = (String, Value, bool, Vec<String>, Value);

/// Returns the views of messages by the event types that changed them.
pub(crate) fn views_of_messages(messages: &[MessageView]) -> BTreeMap<&'static str, Value> {
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

/// Returns the messages that a ride's events define.
fn messages(ride: &[Logged], contents: &BTreeMap<String, String>) -> Vec<Message> {
    let mut messages: Vec<Message> = Vec::new();
    for event in ride {
        let data = &event.data;
        let id = if event.kind == "message:edited" { text(&data["id"]) } else { text(&data["messageId"]) };
        let of = messages.iter_mut().find(|message| message.id == id);
        match (event.kind.as_str(), of) {
            ("message:new", _) => {
                let id = text(&data["id"]);
                let content = contents[&id].clone();
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
