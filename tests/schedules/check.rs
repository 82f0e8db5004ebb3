//! Compares what has happened with the guarantees: first the database by itself, and with what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use crate::step::{OLD_RIDE, What};
use crate::told::{Operation, Told};
use crate::truth::{Interval, Truth};

/// What of the guarantees is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Fault {
    /// What was acknowledged is not there.
    Lost,
    /// A log has holes, or disagrees with its head or its messages.
    Log,
    StoredTwice,
    /// What was rejected is there.
    Rejected,
    /// Somebody has written who was not on the ride.
    Rights,
    /// Erased content was stored again, or is still somewhere.
    Erased,
    /// Participants, or a ride, disagree with the log.
    Participants,
    /// Watermarks disagree with the log.
    Watermarks,
    /// The role of a receipt is not the one that its user has.
    ReceiptRole,
    /// Part of a commit was stored without the rest.
    Partial,
    /// A reader missed an event, got one twice, or in another order.
    Stream,
    /// A reader got what is not theirs.
    Leak,
    /// A value came before the event that it follows.
    EarlyValue,
    /// The last of a value did not come.
    LastValue,
    /// Somebody without a connection stays online.
    Online,
    /// The feed lacks an event, has one twice, or in another order than its log.
    Feed,
    /// An operation, or the end of the told, did not come to its end.
    Stuck,
}

/// A guarantee that is broken, and how.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Problem {
    pub(crate) fault: Fault,
    pub(crate) text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.fault, self.text)
    }
}

/// Collects problems.
#[derive(Debug, Default)]
pub(crate) struct Problems(pub(crate) Vec<Problem>);

impl Problems {
    pub(crate) fn add(&mut self, fault: Fault, text: impl Into<String>) {
        self.0.push(Problem { fault, text: text.into() });
    }

    pub(crate) fn unless(&mut self, is_so: bool, fault: Fault, text: impl FnOnce() -> String) {
        if !is_so {
            self.add(fault, text());
        }
    }
}

/// Compares the database with the guarantees.
pub(crate) fn check_database(told: &Told, truth: &Truth, problems: &mut Problems) {
    let old_ride = told.ride(OLD_RIDE);
    for (ride, (status, driver)) in &truth.rides {
        if !truth.heads.contains_key(&format!("ride/{ride}")) {
            problems.add(Fault::Partial, format!("{ride} is there without its topic"));
        } else if *ride != old_ride || !truth.log(ride).is_empty() {
            check_log(truth, ride, problems);
            check_participants(truth, ride, (status, driver.as_deref()), problems);
            check_receipts(truth, ride, problems);
        }
    }
    for interval in truth.intervals.iter().filter(|interval| !truth.rides.contains_key(&interval.ride)) {
        problems.add(Fault::Partial, format!("a participant of no ride: {interval:?}"));
    }
    for (topic, log) in truth.logs.iter().filter(|(topic, _)| topic.starts_with("user/")) {
        let seqs: Vec<_> = log.iter().map(|event| event.seq).collect();
        let head = truth.heads.get(topic).copied().unwrap_or_default();
        problems
            .unless(seqs == (1..=head).collect::<Vec<_>>(), Fault::Log, || format!("{topic} has {seqs:?} of {head}"));
    }
    check_messages(told, truth, problems);
    check_feed(truth, problems);
}

/// Compares the feed with the logs. A ride that was deleted and created again is on the feed with both of its logs.
fn check_feed(truth: &Truth, problems: &mut Problems) {
    for (topic, log) in &truth.logs {
        let seqs: Vec<_> = log.iter().map(|event| event.seq).collect();
        let feed = truth.feed.get(topic).map_or(&[][..], Vec::as_slice);
        problems.unless(feed.ends_with(&seqs), Fault::Feed, || format!("the feed has {feed:?} of {topic}: {seqs:?}"));
        let is_first_or_next = |pair: &[i64]| pair[1] == 1 || pair[1] == pair[0] + 1;
        problems
            .unless(feed.windows(2).all(is_first_or_next), Fault::Feed, || format!("{topic} on the feed: {feed:?}"));
    }
}

fn check_log(truth: &Truth, ride: &str, problems: &mut Problems) {
    let log = truth.log(ride);
    let seqs: Vec<_> = log.iter().map(|event| event.seq).collect();
    let head = truth.heads[&format!("ride/{ride}")];
    problems.unless(seqs == (1..=head).collect::<Vec<_>>(), Fault::Log, || format!("{ride} has {seqs:?} of {head}"));
    let new: BTreeMap<_, _> = log.iter().filter(|event| event.kind == "message:new").map(|e| (e.seq, e)).collect();
    let rows: BTreeMap<_, _> = truth.messages.iter().filter(|row| row.ride == ride).map(|row| (row.seq, row)).collect();
    let (logged, stored): (Vec<_>, Vec<_>) = (new.keys().collect(), rows.keys().collect());
    problems
        .unless(logged == stored, Fault::Log, || format!("{ride} has messages at {logged:?}, but rows of {stored:?}"));
    for (seq, row) in rows {
        let Some(event) = new.get(&seq) else { continue };
        let is_staff = matches!(event.data["senderRole"].as_str(), Some("support" | "system"));
        let mut intervals = truth.intervals_of(ride, event.data["senderId"].as_str().unwrap_or_default());
        problems.unless(is_staff || intervals.any(|own| own.has(seq) && own.until != Some(seq)), Fault::Rights, || {
            format!("{ride} has a message of somebody who was not on it: {}", event.text)
        });
        problems.unless(event.data["id"] == *row.id, Fault::Log, || {
            format!("{ride} {seq} is another message than its row")
        });
        let is_erased = event.data["content"].is_null() && row.content.is_none();
        problems.unless(row.is_deleted == is_erased && row.is_deleted == row.content.is_none(), Fault::Erased, || {
            format!("{ride} {seq}, deleted: {}, has {:?} and in the log {}", row.is_deleted, row.content, event.text)
        });
    }
}

/// The participants that a log tells of.
fn intervals(truth: &Truth, ride: &str) -> Vec<Interval> {
    let mut intervals: Vec<Interval> = Vec::new();
    for event in truth.log(ride).iter().filter(|event| event.kind == "ride:participants") {
        let users = |name: &str| event.data[name].as_array().cloned().unwrap_or_default();
        for left in users("left") {
            for one in intervals.iter_mut().filter(|one| one.until.is_none() && left["userId"] == *one.user) {
                one.until = Some(event.seq);
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

fn check_participants(truth: &Truth, ride: &str, (status, driver): (&str, Option<&str>), problems: &mut Problems) {
    let sorted = |mut intervals: Vec<Interval>| {
        intervals.sort_by(|one, two| (one.from, &one.user).cmp(&(two.from, &two.user)));
        intervals
    };
    let logged = sorted(intervals(truth, ride));
    let stored = sorted(truth.intervals.iter().filter(|one| one.ride == ride).cloned().collect());
    problems
        .unless(logged == stored, Fault::Participants, || format!("{ride} has {stored:?}, but in its log {logged:?}"));
    let last = truth.log(ride).iter().rev().find(|event| event.data["ride"].is_object());
    let told = last.map(|event| (event.data["ride"]["status"].as_str(), event.data["ride"]["driverId"].as_str()));
    problems.unless(told == Some((Some(status), driver)), Fault::Participants, || {
        format!("{ride} is {status} of {driver:?}, but in its log {told:?}")
    });
}

fn check_receipts(truth: &Truth, ride: &str, problems: &mut Problems) {
    let mut told: BTreeMap<&str, (i64, i64, i64)> = BTreeMap::new();
    for event in truth.log(ride) {
        let is_read = event.kind == "message:read";
        if !is_read && event.kind != "message:delivered" {
            continue;
        }
        let (user, seq) = (event.data["userId"].as_str().unwrap_or_default(), event.data["seq"].as_i64().unwrap_or(0));
        let (delivered, read, at) = told.entry(user).or_default();
        let before = if is_read { *read } else { *delivered };
        problems.unless(seq > before, Fault::Watermarks, || format!("{ride}: {} goes back from {before}", event.text));
        *delivered = seq.max(*delivered);
        *read = if is_read { seq.max(*read) } else { *read };
        *at = event.seq;
    }
    let stored: BTreeMap<_, _> = truth.receipts.iter().filter(|one| one.ride == ride).map(|r| (&*r.user, r)).collect();
    let users: BTreeSet<_> = told.keys().chain(stored.keys()).collect();
    for user in users {
        let marks = stored.get(user).map_or((0, 0), |receipt| (receipt.delivered, receipt.read));
        let (delivered, read, at) = told.get(user).copied().unwrap_or_default();
        problems.unless(marks == (delivered, read), Fault::Watermarks, || {
            format!("{ride}: {user} has the watermarks {marks:?}, but in the log {:?}", (delivered, read))
        });
        let own = truth.intervals_of(ride, user).find(|own| own.has(at) && own.until != Some(at));
        let role = own.map_or("support", |own| &own.role);
        if let Some(receipt) = stored.get(user) {
            problems.unless(receipt.role == role, Fault::ReceiptRole, || {
                format!("{ride}: {user} has marked {at} as {role}, but has a receipt as {}", receipt.role)
            });
        }
    }
}

/// Everything that an operation may have put into a message.
fn contents(told: &Told, op: usize) -> BTreeSet<&str> {
    let is_edit = |other: &&Operation| matches!(other.what, What::Edit { of } if of == op);
    let edits = told.operations.values().filter(is_edit).map(|edit| &*edit.content);
    edits.chain([&*told.operations[&op].content]).collect()
}

fn check_messages(told: &Told, truth: &Truth, problems: &mut Problems) {
    let mut attributed = BTreeSet::new();
    for (op, operation) in &told.operations {
        if !matches!(operation.what, What::Send { .. }) {
            continue;
        }
        let about: Vec<_> = told.operations.values().filter(|other| other.what.about() == Some(*op)).collect();
        let contents = contents(told, *op);
        let answers = about.iter().filter(|other| matches!(other.what, What::Retry { .. })).copied().chain([operation]);
        let answers: Vec<_> = answers.filter(|one| one.is_acknowledged()).filter_map(Operation::answer).collect();
        let named = answers.iter().filter_map(|answer| answer.body["id"].as_str().map(str::to_owned));
        let ids: BTreeSet<_> = named.chain(about.iter().filter_map(|other| other.message.clone())).collect();
        let ride = told.ride(operation.ride);
        let is_own = |row: &&crate::truth::Message| {
            row.ride == ride
                && (ids.contains(&row.id) || row.content.as_deref().is_some_and(|text| contents.contains(text)))
        };
        let rows: Vec<_> = truth.messages.iter().filter(is_own).collect();
        attributed.extend(rows.iter().map(|row| &row.id));
        let name = format!("operation {op} on {ride}");
        let is_erased = rows.iter().any(|row| row.is_deleted);
        let again = if is_erased { Fault::Erased } else { Fault::StoredTwice };
        problems.unless(rows.len() < 2, again, || format!("{name} is there {} times: {rows:?}", rows.len()));
        for answer in answers.iter().filter(|_| !operation.is_lost) {
            let is_there = rows.iter().any(|row| answer.body["id"] == *row.id && answer.body["seq"] == row.seq);
            problems
                .unless(is_there, Fault::Lost, || format!("{name} is answered {}, but there is {rows:?}", answer.body));
        }
        // A conflict or a missing right; but not too many requests, which nobody counts here.
        let rejected = operation.status().filter(|status| (400..500).contains(status) && *status != 429);
        problems.unless(rejected.is_none() || rows.is_empty() || !answers.is_empty(), Fault::Rejected, || {
            format!("{name} is answered {rejected:?}, but there is {rows:?}")
        });
        let is_delete = |other: &&&Operation| matches!(other.what, What::Delete { .. }) && other.is_acknowledged();
        if about.iter().any(|other| is_delete(&other)) && !operation.is_lost {
            problems.unless(is_erased, Fault::Lost, || format!("{name} was deleted, but there is {rows:?}"));
            let events = truth.log(&ride).iter();
            for event in events.filter(|event| contents.iter().any(|text| event.data["content"] == **text)) {
                problems.add(Fault::Erased, format!("{name} was deleted, but the log has {}", event.text));
            }
        }
    }
    for row in truth.messages.iter().filter(|row| !attributed.contains(&row.id)) {
        problems.add(Fault::StoredTwice, format!("a message that nobody has sent: {row:?}"));
    }
    check_edits(told, truth, problems);
}

fn check_edits(told: &Told, truth: &Truth, problems: &mut Problems) {
    for (op, edit) in told.operations.iter().filter(|(_, one)| matches!(one.what, What::Edit { .. })) {
        let log = truth.log(&told.ride(edit.ride));
        let count = log.iter().filter(|e| e.kind == "message:edited" && e.data["content"] == *edit.content).count();
        problems.unless(count < 2, Fault::StoredTwice, || format!("the edit {op} is there {count} times"));
        let is_erased = truth.messages.iter().any(|row| Some(&row.id) == edit.message.as_ref() && row.is_deleted);
        problems.unless(count == 1 || !edit.is_acknowledged() || is_erased, Fault::Lost, || {
            format!("the edit {op} was acknowledged, but is not in the log")
        });
    }
    for (op, mark) in told.operations.iter().filter(|(_, one)| matches!(one.what, What::Mark { .. })) {
        let Some(answer) = mark.answer().filter(|_| mark.is_acknowledged()) else { continue };
        let said = |name: &str| answer.body[name].as_i64().unwrap_or_default();
        let is_own =
            |one: &&crate::truth::Receipt| one.ride == told.ride(mark.ride) && answer.body["userId"] == *one.user;
        let stored = truth.receipts.iter().find(is_own).map_or((0, 0), |one| (one.delivered, one.read));
        problems.unless(stored.0 >= said("deliveredSeq") && stored.1 >= said("readSeq"), Fault::Lost, || {
            format!("the receipt {op} is answered {}, but there is {stored:?}", answer.body)
        });
    }
}

/// Whether what a reader got is what the log has: the same, or the same message, which was erased since.
pub(crate) fn is_same(kind: &str, data: &Value, logged: &crate::truth::Logged) -> bool {
    let is_message = matches!(kind, "message:new" | "message:edited");
    let is_erased = is_message && logged.data["content"].is_null() && logged.data["id"] == data["id"];
    kind == logged.kind && (*data == logged.data || is_erased)
}
