//! Compares what stream readers received with the guarantees.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::check::{ViolationKind, Violations, is_same};
use crate::database_state::{DatabaseState, LoggedEvent};
use crate::reader::{Item, Segment, Transcript};
use crate::record::{Operation, RunRecord, latitude};
use crate::step::{Action, Actor, OLD_RIDE};
use crate::visible_log::VisibleLog;

/// Whether a reader has received everything.
pub(crate) fn is_complete(record: &RunRecord, database: &DatabaseState, reader: &Transcript) -> bool {
    let Some(segment) = reader.segments.last() else { return true };
    if segment.has_ended {
        return true;
    }
    match reader.ride {
        Some(ride) => {
            let visible = VisibleLog::of(record, database, reader.actor, &record.ride(ride));
            let last = segment.last_id().and_then(|id| id.parse().ok()).unwrap_or(0);
            visible.missing(last).is_none() && visible.is_open() && has_last_location(record, database, reader, segment)
        }
        None => {
            let ends = record.rides.iter().filter(|ride| **ride != OLD_RIDE).filter_map(|ride| {
                let visible = VisibleLog::for_stream(record, database, (reader.actor, true), &record.ride(*ride));
                let is_on = database
                    .intervals_of(&record.ride(*ride), &record.user(reader.actor))
                    .any(|interval| interval.until.is_none());
                visible.log.last().filter(|_| is_on).map(|event| event.text.clone())
            });
            let wanted: BTreeSet<_> = ends.collect();
            let got: BTreeSet<_> = segment.items.iter().map(|item| item.text.clone()).collect();
            segment.items.iter().any(|item| item.kind == "notice") && wanted.is_subset(&got)
        }
    }
}

/// Whether a ride's reader has received the driver's last location.
fn has_last_location(record: &RunRecord, database: &DatabaseState, reader: &Transcript, segment: &Segment) -> bool {
    let Some(ride) = reader.ride.map(|ride| record.ride(ride)) else { return true };
    let driver = database.rides.get(&ride).and_then(|(_, driver)| driver.as_ref());
    // A location from an earlier interval of the driver does not count.
    let is_of_now = |location: &&crate::database_state::Location| {
        database.intervals_of(&ride, &location.driver).any(|own| own.until.is_none() && own.from <= location.seq)
    };
    let mut of_driver =
        database.locations.iter().filter(|location| location.ride == ride && Some(&location.driver) == driver);
    let Some(last) = of_driver.find(|location| is_of_now(location)) else {
        return true;
    };
    let user = record.user(reader.actor);
    let may_see = reader.actor == Actor::Support
        || database.intervals_of(&ride, &user).any(|interval| interval.until.is_none() && interval.from <= last.seq);
    let received = segment.items.iter().rev().find_map(|item| match item.kind.as_str() {
        "ride:location" => Some(item.data()["lat"].clone()),
        "stream:sync" => Some(item.data()["state"]["location"]["lat"].clone()).filter(|lat| !lat.is_null()),
        _ => None,
    });
    !may_see || received.as_ref() == Some(&last.data["lat"])
}

/// Checks everything that a reader has received.
pub(crate) fn check_reader(
    record: &RunRecord,
    database: &DatabaseState,
    number: usize,
    reader: &Transcript,
    violations: &mut Violations,
) {
    let name = format!("reader {number} ({} of {:?})", reader.actor.name(), reader.ride);
    let is_merged = reader.ride.is_none();
    let mut check = ReaderCheck {
        record,
        database,
        actor: reader.actor,
        is_merged,
        name,
        positions: BTreeMap::new(),
        own: None,
        violations,
    };
    for (index, segment) in reader.segments.iter().enumerate() {
        if let Some(error) = &segment.error {
            check.violation(ViolationKind::Stream, error.clone());
        }
        for item in &segment.items {
            check.check_item(item, reader.ride, index > 0 || segment.after.is_some());
        }
        if let Some(reason) = segment.closing() {
            let is_due = match reader.ride {
                Some(ride) => check.is_at_end_of_access(ride),
                None => false,
            };
            if !is_due {
                check.violation(ViolationKind::Stream, format!("ended ({reason}) at {:?}", check.positions));
            }
        }
    }
    if let Some(last) = reader.segments.last().filter(|last| !last.has_ended && last.is_open()) {
        check.check_end(reader, last);
    }
}

struct ReaderCheck<'a, 'p> {
    record: &'a RunRecord,
    database: &'a DatabaseState,
    actor: Actor,
    is_merged: bool,
    name: String,
    /// The last delivered seq of each ride's log.
    positions: BTreeMap<String, i64>,
    /// The last delivered seq of the user's own log, once there is one.
    own: Option<i64>,
    violations: &'p mut Violations,
}

impl ReaderCheck<'_, '_> {
    fn violation(&mut self, kind: ViolationKind, text: impl Into<String>) {
        let text = format!("{}: {}", self.name, text.into());
        self.violations.add(kind, text);
    }

    fn visible(&self, ride: &str) -> VisibleLog<'_> {
        VisibleLog::for_stream(self.record, self.database, (self.actor, self.is_merged), ride)
    }

    /// Returns the last delivered seq of a ride. If there is none, it is the one before the reader's last interval.
    fn position(&self, ride: &str) -> i64 {
        let begin = self.visible(ride).intervals.last().map_or(0, |(from, _)| from - 1);
        self.positions.get(ride).copied().unwrap_or(begin)
    }

    /// Whether a ride's reader has received everything up to the end of one of its user's intervals.
    fn is_at_end_of_access(&self, ride: usize) -> bool {
        let ride = self.record.ride(ride);
        let position = self.positions.get(&ride).copied().unwrap_or(0);
        self.database
            .intervals_of(&ride, &self.record.user(self.actor))
            .any(|interval| interval.until == Some(position))
    }

    fn check_item(&mut self, item: &Item, of_ride: Option<usize>, resumes: bool) {
        let data = item.data();
        let ride = of_ride.map(|ride| self.record.ride(ride));
        match item.kind.as_str() {
            "stream:sync" => self.check_sync(item, &data, ride.as_deref(), resumes),
            "ride:location" | "typing:indicator" => {
                let ride = data["rideId"].as_str().unwrap_or_default().to_owned();
                self.check_value_item(&ride, item, &data);
            }
            "presence:online" | "presence:offline" => self.check_presence(&data),
            "stream:closing" | "driver:availability" => {}
            "ride:assigned" | "notice" => self.check_user_event(item, &data),
            // The event on the user's topic has `fromSeq`, the one on the ride's topic has not.
            "ride:reopened" if of_ride.is_none() && data["fromSeq"].is_i64() => self.check_user_event(item, &data),
            "ride:closed" => {
                let (closed, last) = (data["rideId"].as_str().unwrap_or_default(), data["lastSeq"].as_i64());
                let position = self.positions.get(closed).copied();
                if position.is_some()
                    && self.visible(closed).missing(position.unwrap_or(0)).is_some_and(|e| Some(e.seq) <= last)
                {
                    self.violation(ViolationKind::Stream, format!("{data}, but was delivered only up to {position:?}"));
                }
                if of_ride.is_none() {
                    self.check_user_event(item, &data);
                }
            }
            _ => {
                let event_ride = data["rideId"].as_str().or(data["ride"]["rideId"].as_str()).map(str::to_owned);
                match ride.or(event_ride) {
                    Some(ride) => self.check_event(&ride, item, &data, of_ride.is_some()),
                    None => self.violation(ViolationKind::Stream, format!("{} of no ride", item.kind)),
                }
            }
        }
    }

    fn check_sync(&mut self, item: &Item, data: &Value, ride: Option<&str>, resumes: bool) {
        if !data["gap"].is_null() || resumes && data["resumed"] != true {
            self.violation(ViolationKind::Stream, format!("an unexpected gap: {}", item.text));
        }
        match ride {
            Some(ride) => {
                let cursor = item.id.as_ref().and_then(|id| id.parse::<i64>().ok()).unwrap_or(-1);
                if let Some(position) = self.positions.get(ride).copied() {
                    let skipped = self.visible(ride).missing(position).filter(|event| event.seq <= cursor);
                    let skipped = skipped.map(|event| event.seq);
                    if let Some(skipped) = skipped {
                        self.violation(
                            ViolationKind::Stream,
                            format!("goes on after {cursor}, but {skipped} is missing"),
                        );
                    }
                }
                let position = self.positions.entry(ride.to_owned()).or_insert(cursor);
                *position = cursor.max(*position);
                self.check_state(ride, &data["state"]);
            }
            None => {
                for (ride, state) in data["state"]["rides"].as_object().into_iter().flatten() {
                    if !resumes {
                        self.positions.insert(ride.clone(), state["asOf"].as_i64().unwrap_or(0));
                    }
                    self.check_state(ride, state);
                }
            }
        }
    }

    fn check_state(&mut self, ride: &str, state: &Value) {
        let location = &state["location"];
        let as_of = state["asOf"].as_i64().unwrap_or(i64::MAX);
        if !location.is_null() {
            self.check_value(ride, location, "lat", as_of);
        }
    }

    fn check_event(&mut self, ride: &str, item: &Item, data: &Value, has_seq: bool) {
        let position = self.position(ride);
        let seq = item.id.as_ref().and_then(|id| id.parse::<i64>().ok()).filter(|_| has_seq);
        let matches_item =
            |event: &LoggedEvent| seq.is_none_or(|seq| seq == event.seq) && is_same(&item.kind, data, event);
        let visible = self.visible(ride);
        // A user who joins a ride after the stream has begun receives it from the start of that interval.
        let is_new = !self.positions.contains_key(ride);
        let begins =
            visible.intervals.iter().map(|(from, _)| from - 1).find(|begin| visible.next(*begin, matches_item).is_ok());
        let position = begins.filter(|_| is_new).unwrap_or(position);
        let next =
            visible.next(position, matches_item).map(|event| event.seq).map_err(|event| event.map(|event| event.seq));
        let elsewhere = visible.log.iter().find(|event| matches_item(event)).map(|event| event.seq);
        let is_visible = elsewhere.is_some_and(|seq| visible.has(seq));
        match (next, elsewhere) {
            (Ok(seq), _) => drop(self.positions.insert(ride.to_owned(), seq)),
            (Err(_), None) => {
                self.violation(ViolationKind::Stream, format!("{ride}: not in the log: {:?} {}", item.id, item.text))
            }
            (Err(_), Some(seq)) if !is_visible => {
                self.violation(ViolationKind::Leak, format!("{ride}: {seq} is not visible: {}", item.text));
            }
            (Err(next), Some(seq)) => {
                self.violation(ViolationKind::Stream, format!("{ride}: after {position} comes {seq}, not {next:?}"));
                self.positions.insert(ride.to_owned(), seq);
            }
        }
    }

    /// Checks an event of the user's own log.
    fn check_user_event(&mut self, item: &Item, data: &Value) {
        let topic = format!("user/{}", self.record.user(self.actor));
        let log = self.database.logs.get(&topic).map_or(&[][..], Vec::as_slice);
        let found = log.iter().find(|event| event.seq > self.own.unwrap_or(0) && is_same(&item.kind, data, event));
        match (found.map(|event| event.seq), self.own) {
            (Some(seq), before) => {
                if let Some(before) = before.filter(|before| before + 1 != seq) {
                    self.violation(ViolationKind::Stream, format!("user topic: after {before} comes {seq}"));
                }
                self.own = Some(seq);
            }
            (None, before) => {
                self.violation(ViolationKind::Stream, format!("user topic: after {before:?} comes {}", item.text))
            }
        }
    }

    fn check_value_item(&mut self, ride: &str, item: &Item, data: &Value) {
        let position = self.position(ride);
        let field = if item.kind == "ride:location" { "lat" } else { "userId" };
        self.check_value(ride, data, field, position);
    }

    /// Checks that a value is visible, and that the events before it were delivered before.
    fn check_value(&mut self, ride: &str, data: &Value, field: &str, position: i64) {
        let of = self.record.operations.iter().filter(|(op, operation)| {
            self.record.ride(operation.ride) == ride
                && match operation.action {
                    Action::Locate { .. } => field == "lat" && data["lat"].as_f64() == Some(latitude(**op)),
                    Action::Type { actor } => field == "userId" && data["userId"] == self.record.user(actor),
                    _ => false,
                }
        });
        // `typing: false` is true from any later event on, because the event may be the user's next message.
        let high = |operation: &Operation| operation.head_after.filter(|_| data["typing"] != false).unwrap_or(i64::MAX);
        let bounds: Vec<_> = of.map(|(_, operation)| (operation.head_before, high(operation))).collect();
        let visible = self.visible(ride);
        let may_contain_value = bounds.iter().any(|(low, high)| visible.may_contain_value(*low, *high));
        let is_after_its_events = bounds.iter().any(|(low, _)| *low <= position);
        if !may_contain_value {
            self.violation(ViolationKind::Leak, format!("{ride}: a value that is not visible: {data}, of {bounds:?}"));
        } else if !is_after_its_events {
            self.violation(ViolationKind::EarlyValue, format!("{ride}: at {position} comes {data}, of {bounds:?}"));
        }
    }

    /// Checks that the presence is not that of a user who joined after the reader had left.
    fn check_presence(&mut self, data: &Value) {
        let ride = data["rideId"].as_str().unwrap_or_default();
        let user = data["userId"].as_str().unwrap_or_default();
        let joined = self.database.intervals_of(ride, user).map(|interval| interval.from).min();
        let visible = self.visible(ride);
        if joined.is_none_or(|joined| !visible.may_contain_value(joined, i64::MAX)) {
            self.violation(ViolationKind::Leak, format!("the presence of a user who came later: {data}"));
        }
    }

    /// Checks that an open stream has received everything by the end.
    fn check_end(&mut self, reader: &Transcript, segment: &Segment) {
        let user = self.record.user(self.actor);
        let rides: Vec<_> = match reader.ride {
            Some(ride) => vec![self.record.ride(ride)],
            None => {
                let on =
                    |ride: &String| self.database.intervals_of(ride, &user).any(|interval| interval.until.is_none());
                self.record.rides.iter().filter(|r| **r != OLD_RIDE).map(|r| self.record.ride(*r)).filter(on).collect()
            }
        };
        for ride in rides {
            let position = self.position(&ride);
            let missing = self.visible(&ride).missing(position).map(|event| event.seq);
            if let Some(missing) = missing {
                self.violation(
                    ViolationKind::Stream,
                    format!("{ride}: was delivered up to {position}, but not {missing}"),
                );
            }
        }
        let log = self.database.logs.get(&format!("user/{user}"));
        let head = log.and_then(|log| log.last()).map(|event| event.seq);
        if reader.ride.is_none() && self.own != head {
            self.violation(
                ViolationKind::Stream,
                format!("user topic was delivered up to {:?}, but not {head:?}", self.own),
            );
        }
        if !has_last_location(self.record, self.database, reader, segment) {
            self.violation(ViolationKind::LatestValue, "was not sent the last location");
        }
    }
}
