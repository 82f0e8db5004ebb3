//! Compares the results of a run with the guarantees. This module checks the database by itself, and against the acknowledged operations.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use crate::database_state::{DatabaseState, Interval, LoggedEvent};
use crate::record::{Operation, RunRecord};
use crate::step::{Action, OLD_RIDE};

/// The guarantee that is violated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ViolationKind {
    /// An acknowledged write is missing.
    Lost,
    /// A log has holes, or differs from its head or its messages.
    Log,
    StoredTwice,
    /// A rejected write is stored.
    Rejected,
    /// A user has written without access to the ride.
    Rights,
    /// Erased content was stored again, or still exists.
    Erased,
    /// The participants or the ride's row differ from the log.
    Participants,
    /// The watermarks differ from the log.
    Watermarks,
    /// The role of a receipt is not the role of its user.
    ReceiptRole,
    /// A part of a commit was stored without the rest.
    Partial,
    /// A reader missed an event, or received one twice or out of order.
    Stream,
    /// A reader received data that it may not see.
    Leak,
    /// A value arrived before the event that it follows.
    EarlyValue,
    /// The latest value did not arrive.
    LatestValue,
    /// A user without a connection stays online.
    Online,
    /// The feed lacks an event, or has one twice or in another order than its log.
    Feed,
    /// An operation, or the end of the run, did not complete.
    Stuck,
}

/// A violation of a guarantee.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    pub(crate) kind: ViolationKind,
    pub(crate) text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.text)
    }
}

/// Collects violations.
#[derive(Debug, Default)]
pub(crate) struct Violations(pub(crate) Vec<Violation>);

impl Violations {
    pub(crate) fn add(&mut self, kind: ViolationKind, text: impl Into<String>) {
        self.0.push(Violation { kind, text: text.into() });
    }

    pub(crate) fn check(&mut self, condition: bool, kind: ViolationKind, text: impl FnOnce() -> String) {
        if !condition {
            self.add(kind, text());
        }
    }
}

/// Checks the database.
pub(crate) fn check_database(record: &RunRecord, database: &DatabaseState, violations: &mut Violations) {
    let old_ride = record.ride(OLD_RIDE);
    for (ride, (status, driver)) in &database.rides {
        if !database.heads.contains_key(&format!("ride/{ride}")) {
            violations.add(ViolationKind::Partial, format!("{ride} exists without its topic"));
        } else if *ride != old_ride || !database.log(ride).is_empty() {
            check_log(database, ride, violations);
            check_participants(database, ride, (status, driver.as_deref()), violations);
            check_receipts(database, ride, violations);
        }
    }
    for interval in database.intervals.iter().filter(|interval| !database.rides.contains_key(&interval.ride)) {
        violations.add(ViolationKind::Partial, format!("a participant of no ride: {interval:?}"));
    }
    for (topic, log) in database.logs.iter().filter(|(topic, _)| topic.starts_with("user/")) {
        let seqs: Vec<_> = log.iter().map(|event| event.seq).collect();
        let head = database.heads.get(topic).copied().unwrap_or_default();
        violations.check(seqs == (1..=head).collect::<Vec<_>>(), ViolationKind::Log, || {
            format!("{topic} has {seqs:?} of {head}")
        });
    }
    check_user_topics(record, database, violations);
    check_messages(record, database, violations);
    check_feed(database, violations);
}

/// Checks that each interval of a participant is reported once on the user's topic, by its beginning and by its end. A ride that was deleted
/// and created again reports both of its participants.
fn check_user_topics(record: &RunRecord, database: &DatabaseState, violations: &mut Violations) {
    let old_ride = record.ride(OLD_RIDE);
    for interval in database.intervals.iter().filter(|interval| interval.ride != old_ride) {
        let topic = format!("user/{}", interval.user);
        let log = database.logs.get(&topic).map_or(&[][..], Vec::as_slice);
        let begins = |event: &&LoggedEvent| {
            event.kind == "ride:assigned"
                && event.data["ride"]["rideId"] == *interval.ride
                && event.data["fromSeq"] == interval.from
        };
        let ends = |event: &&LoggedEvent| {
            event.kind == "ride:closed"
                && event.data["reason"] == "removed"
                && event.data["rideId"] == *interval.ride
                && Some(&event.data["lastSeq"]) == interval.until.map(Value::from).as_ref()
        };
        let count = (log.iter().filter(begins).count(), log.iter().filter(ends).count());
        let expected = (1, usize::from(interval.until.is_some()));
        violations.check(count == expected, ViolationKind::Lost, || {
            format!("{topic} has {count:?} events of the beginning and the end of {interval:?}")
        });
    }
}

/// Compares the feed with the logs. A ride that was deleted and created again is on the feed with both of its logs.
fn check_feed(database: &DatabaseState, violations: &mut Violations) {
    for (topic, log) in &database.logs {
        let seqs: Vec<_> = log.iter().map(|event| event.seq).collect();
        let feed = database.feed.get(topic).map_or(&[][..], Vec::as_slice);
        violations.check(feed.ends_with(&seqs), ViolationKind::Feed, || {
            format!("the feed has {feed:?} of {topic}: {seqs:?}")
        });
        let is_first_or_next = |pair: &[i64]| pair[1] == 1 || pair[1] == pair[0] + 1;
        violations.check(feed.windows(2).all(is_first_or_next), ViolationKind::Feed, || {
            format!("{topic} on the feed: {feed:?}")
        });
    }
}

fn check_log(database: &DatabaseState, ride: &str, violations: &mut Violations) {
    let log = database.log(ride);
    let seqs: Vec<_> = log.iter().map(|event| event.seq).collect();
    let head = database.heads[&format!("ride/{ride}")];
    violations
        .check(seqs == (1..=head).collect::<Vec<_>>(), ViolationKind::Log, || format!("{ride} has {seqs:?} of {head}"));
    let new: BTreeMap<_, _> = log.iter().filter(|event| event.kind == "message:new").map(|e| (e.seq, e)).collect();
    let rows: BTreeMap<_, _> =
        database.messages.iter().filter(|row| row.ride == ride).map(|row| (row.seq, row)).collect();
    let (logged, stored): (Vec<_>, Vec<_>) = (new.keys().collect(), rows.keys().collect());
    violations.check(logged == stored, ViolationKind::Log, || {
        format!("{ride} has messages at {logged:?}, but rows of {stored:?}")
    });
    for (seq, row) in rows {
        let Some(event) = new.get(&seq) else { continue };
        let is_staff = matches!(event.data["senderRole"].as_str(), Some("support" | "system"));
        let mut intervals = database.intervals_of(ride, event.data["senderId"].as_str().unwrap_or_default());
        violations.check(
            is_staff || intervals.any(|own| own.has(seq) && own.until != Some(seq)),
            ViolationKind::Rights,
            || format!("{ride} has a message of a user who was not a participant: {}", event.text),
        );
        violations.check(event.data["id"] == *row.id, ViolationKind::Log, || {
            format!("{ride} {seq} is another message than its row")
        });
        let is_erased = event.data["content"].is_null() && row.content.is_none();
        violations.check(
            row.is_deleted == is_erased && row.is_deleted == row.content.is_none(),
            ViolationKind::Erased,
            || {
                format!(
                    "{ride} {seq}, deleted: {}, has {:?} and in the log {}",
                    row.is_deleted, row.content, event.text
                )
            },
        );
    }
}

/// Returns the participants according to a log.
fn intervals(database: &DatabaseState, ride: &str) -> Vec<Interval> {
    let mut intervals: Vec<Interval> = Vec::new();
    for event in database.log(ride).iter().filter(|event| event.kind == "ride:participants") {
        let users = |name: &str| event.data[name].as_array().cloned().unwrap_or_default();
        for left in users("left") {
            for interval in
                intervals.iter_mut().filter(|interval| interval.until.is_none() && left["userId"] == *interval.user)
            {
                interval.until = Some(event.seq);
            }
        }
        intervals.extend(users("joined").iter().map(|joined| Interval {
            ride: ride.to_owned(),
            user: joined["userId"].as_str().unwrap_or_default().to_owned(),
            role: joined["role"].as_str().unwrap_or_default().to_owned(),
            from: event.seq,
            until: None,
        }));
    }
    intervals
}

fn check_participants(
    database: &DatabaseState,
    ride: &str,
    (status, driver): (&str, Option<&str>),
    violations: &mut Violations,
) {
    let sorted = |mut intervals: Vec<Interval>| {
        intervals.sort_by(|a, b| (a.from, &a.user).cmp(&(b.from, &b.user)));
        intervals
    };
    let logged = sorted(intervals(database, ride));
    let stored = sorted(database.intervals.iter().filter(|interval| interval.ride == ride).cloned().collect());
    violations.check(logged == stored, ViolationKind::Participants, || {
        format!("{ride} has {stored:?}, but in its log {logged:?}")
    });
    let last = database.log(ride).iter().rev().find(|event| event.data["ride"].is_object());
    let logged_ride =
        last.map(|event| (event.data["ride"]["status"].as_str(), event.data["ride"]["driverId"].as_str()));
    violations.check(logged_ride == Some((Some(status), driver)), ViolationKind::Participants, || {
        format!("{ride} is {status} of {driver:?}, but in its log {logged_ride:?}")
    });
}

fn check_receipts(database: &DatabaseState, ride: &str, violations: &mut Violations) {
    let mut logged: BTreeMap<&str, (i64, i64, i64)> = BTreeMap::new();
    for event in database.log(ride) {
        let is_read = event.kind == "message:read";
        if !is_read && event.kind != "message:delivered" {
            continue;
        }
        let (user, seq) = (event.data["userId"].as_str().unwrap_or_default(), event.data["seq"].as_i64().unwrap_or(0));
        let (delivered, read, at) = logged.entry(user).or_default();
        let before = if is_read { *read } else { *delivered };
        violations.check(seq > before, ViolationKind::Watermarks, || {
            format!("{ride}: {} goes back from {before}", event.text)
        });
        *delivered = seq.max(*delivered);
        *read = if is_read { seq.max(*read) } else { *read };
        *at = event.seq;
    }
    let stored: BTreeMap<_, _> =
        database.receipts.iter().filter(|receipt| receipt.ride == ride).map(|r| (&*r.user, r)).collect();
    let users: BTreeSet<_> = logged.keys().chain(stored.keys()).collect();
    for user in users {
        let watermarks = stored.get(user).map_or((0, 0), |receipt| (receipt.delivered, receipt.read));
        let (delivered, read, at) = logged.get(user).copied().unwrap_or_default();
        violations.check(watermarks == (delivered, read), ViolationKind::Watermarks, || {
            format!("{ride}: {user} has the watermarks {watermarks:?}, but in the log {:?}", (delivered, read))
        });
        let own = database.intervals_of(ride, user).find(|own| own.has(at) && own.until != Some(at));
        let role = own.map_or("support", |own| &own.role);
        if let Some(receipt) = stored.get(user) {
            violations.check(receipt.role == role, ViolationKind::ReceiptRole, || {
                format!("{ride}: {user} has marked {at} as {role}, but has a receipt as {}", receipt.role)
            });
        }
    }
}

/// Returns every content that an operation's message may have had.
fn contents(record: &RunRecord, op: usize) -> BTreeSet<&str> {
    let is_edit = |other: &&Operation| matches!(other.action, Action::Edit { of } if of == op);
    let edits = record.operations.values().filter(is_edit).map(|edit| &*edit.content);
    edits.chain([&*record.operations[&op].content]).collect()
}

fn check_messages(record: &RunRecord, database: &DatabaseState, violations: &mut Violations) {
    let mut attributed = BTreeSet::new();
    for (op, operation) in &record.operations {
        if !matches!(operation.action, Action::Send { .. }) {
            continue;
        }
        let about: Vec<_> = record.operations.values().filter(|other| other.action.about() == Some(*op)).collect();
        let contents = contents(record, *op);
        let responses =
            about.iter().filter(|other| matches!(other.action, Action::Retry { .. })).copied().chain([operation]);
        let responses: Vec<_> =
            responses.filter(|operation| operation.is_acknowledged()).filter_map(Operation::response).collect();
        let named = responses.iter().filter_map(|response| response.body["id"].as_str().map(str::to_owned));
        let ids: BTreeSet<_> = named.chain(about.iter().filter_map(|other| other.message.clone())).collect();
        let ride = record.ride(operation.ride);
        let is_own = |row: &&crate::database_state::Message| {
            row.ride == ride
                && (ids.contains(&row.id) || row.content.as_deref().is_some_and(|text| contents.contains(text)))
        };
        let rows: Vec<_> = database.messages.iter().filter(is_own).collect();
        attributed.extend(rows.iter().map(|row| &row.id));
        let name = format!("operation {op} on {ride}");
        let is_erased = rows.iter().any(|row| row.is_deleted);
        let duplicate = if is_erased { ViolationKind::Erased } else { ViolationKind::StoredTwice };
        violations.check(rows.len() < 2, duplicate, || format!("{name} is there {} times: {rows:?}", rows.len()));
        for response in responses.iter().filter(|_| !operation.is_lost) {
            let is_there = rows.iter().any(|row| response.body["id"] == *row.id && response.body["seq"] == row.seq);
            violations.check(is_there, ViolationKind::Lost, || {
                format!("{name} returned {}, but there is {rows:?}", response.body)
            });
        }
        // A conflict or a missing right. A 429 is not counted.
        let rejected = operation.status().filter(|status| (400..500).contains(status) && *status != 429);
        violations.check(
            rejected.is_none() || rows.is_empty() || !responses.is_empty(),
            ViolationKind::Rejected,
            || format!("{name} returned {rejected:?}, but there is {rows:?}"),
        );
        let is_delete = |other: &&&Operation| matches!(other.action, Action::Delete { .. }) && other.is_acknowledged();
        if about.iter().any(|other| is_delete(&other)) && !operation.is_lost {
            violations.check(is_erased, ViolationKind::Lost, || format!("{name} was deleted, but there is {rows:?}"));
            let events = database.log(&ride).iter();
            for event in events.filter(|event| contents.iter().any(|text| event.data["content"] == **text)) {
                violations.add(ViolationKind::Erased, format!("{name} was deleted, but the log has {}", event.text));
            }
        }
    }
    for row in database.messages.iter().filter(|row| !attributed.contains(&row.id)) {
        violations.add(ViolationKind::StoredTwice, format!("a message that no operation has sent: {row:?}"));
    }
    check_edits(record, database, violations);
}

fn check_edits(record: &RunRecord, database: &DatabaseState, violations: &mut Violations) {
    for (op, edit) in record.operations.iter().filter(|(_, operation)| matches!(operation.action, Action::Edit { .. }))
    {
        let log = database.log(&record.ride(edit.ride));
        let count = log.iter().filter(|e| e.kind == "message:edited" && e.data["content"] == *edit.content).count();
        violations.check(count < 2, ViolationKind::StoredTwice, || format!("the edit {op} is there {count} times"));
        let is_erased = database.messages.iter().any(|row| Some(&row.id) == edit.message.as_ref() && row.is_deleted);
        violations.check(count == 1 || !edit.is_acknowledged() || is_erased, ViolationKind::Lost, || {
            format!("the edit {op} was acknowledged, but is not in the log")
        });
    }
    for (op, update) in
        record.operations.iter().filter(|(_, operation)| matches!(operation.action, Action::UpdateReceipt { .. }))
    {
        let Some(response) = update.response().filter(|_| update.is_acknowledged()) else { continue };
        let returned = |name: &str| response.body[name].as_i64().unwrap_or_default();
        let is_own = |receipt: &&crate::database_state::Receipt| {
            receipt.ride == record.ride(update.ride) && response.body["userId"] == *receipt.user
        };
        let stored = database.receipts.iter().find(is_own).map_or((0, 0), |receipt| (receipt.delivered, receipt.read));
        violations.check(
            stored.0 >= returned("deliveredSeq") && stored.1 >= returned("readSeq"),
            ViolationKind::Lost,
            || format!("the receipt {op} returned {}, but there is {stored:?}", response.body),
        );
    }
}

/// Whether a received event is the event in the log: the same data, or the same message, which was erased since.
pub(crate) fn is_same(kind: &str, data: &Value, logged: &crate::database_state::LoggedEvent) -> bool {
    let is_message = matches!(kind, "message:new" | "message:edited");
    let is_erased = is_message && logged.data["content"].is_null() && logged.data["id"] == data["id"];
    kind == logged.kind && (*data == logged.data || is_erased)
}
