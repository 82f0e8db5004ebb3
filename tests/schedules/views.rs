//! Compares what readers got with the guarantees.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::check::{Fault, Problems, is_same};
use crate::reader::{Item, Reading, Segment};
use crate::step::{OLD_RIDE, What, Who};
use crate::told::{Operation, Told, latitude};
use crate::truth::{Logged, Truth};

/// What of a ride's log is a reader's.
pub(crate) struct Part<'a> {
    pub(crate) log: &'a [Logged],
    /// `None`: all of it.
    intervals: Vec<(i64, Option<i64>)>,
    /// Of support: what they may see, but need not, since they were participants as well.
    optional_before: i64,
}

impl<'a> Part<'a> {
    /// What is a reader's of one ride by itself.
    pub(crate) fn of(told: &Told, truth: &'a Truth, who: Who, ride: &str) -> Self {
        Self::of_either(told, truth, (who, false), ride)
    }

    /// The same, where support is no more than a participant: on a merged stream.
    fn of_either(told: &Told, truth: &'a Truth, (who, is_merged): (Who, bool), ride: &str) -> Self {
        let user = told.user(who);
        let own: Vec<_> = truth.intervals_of(ride, &user).map(|one| (one.from, one.until)).collect();
        let log = truth.log(ride);
        match who {
            Who::Support | Who::Service if !is_merged => {
                let last = own.iter().filter(|(_, until)| until.is_none()).map(|(from, _)| *from).max();
                Self { log, intervals: vec![(1, None)], optional_before: last.unwrap_or(0) }
            }
            _ => Self { log, intervals: own, optional_before: 0 },
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.intervals.is_empty()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.intervals.iter().any(|(_, until)| until.is_none())
    }

    pub(crate) fn has(&self, seq: i64) -> bool {
        self.intervals.iter().any(|(from, until)| seq >= *from && until.is_none_or(|until| seq <= until))
    }

    /// Whether a value that was true between two places may be the reader's.
    fn may_have(&self, low: i64, high: i64) -> bool {
        self.intervals.iter().any(|(from, until)| high >= *from && until.is_none_or(|until| low < until))
    }

    /// Whether a reader need not be sent an event: it is about a message that is not theirs.
    fn is_optional(&self, event: &Logged) -> bool {
        if event.seq < self.optional_before {
            return true;
        }
        let message = match event.kind.as_str() {
            "message:edited" => event.data["id"].as_str(),
            "message:deleted" | "message:reaction" | "message:read" | "message:delivered" => {
                event.data["messageId"].as_str()
            }
            _ => return false,
        };
        let seq = self.log.iter().find(|one| one.kind == "message:new" && one.data["id"].as_str() == message);
        seq.is_none_or(|one| !self.has(one.seq))
    }

    /// The events after a place.
    pub(crate) fn after(&self, seq: i64) -> impl Iterator<Item = &'a Logged> {
        self.log.iter().filter(move |event| event.seq > seq && self.has(event.seq))
    }

    /// The next event after a place that is one, and those that may be left out before it.
    fn next(&self, after: i64, is_it: impl Fn(&Logged) -> bool) -> Result<&'a Logged, Option<&'a Logged>> {
        for event in self.after(after) {
            if is_it(event) {
                return Ok(event);
            }
            if !self.is_optional(event) {
                return Err(Some(event));
            }
        }
        Err(None)
    }

    /// What has to come yet.
    pub(crate) fn missing(&self, after: i64) -> Option<&'a Logged> {
        self.after(after).find(|event| !self.is_optional(event))
    }
}

/// Whether a reader has all that it will be sent.
pub(crate) fn is_complete(told: &Told, truth: &Truth, reader: &Reading) -> bool {
    let Some(segment) = reader.segments.last() else { return true };
    if segment.has_ended {
        return true;
    }
    match reader.ride {
        Some(ride) => {
            let part = Part::of(told, truth, reader.who, &told.ride(ride));
            let last = segment.last_id().and_then(|id| id.parse().ok()).unwrap_or(0);
            part.missing(last).is_none() && part.is_open() && has_last_location(told, truth, reader, segment)
        }
        None => {
            let ends = told.rides.iter().filter(|ride| **ride != OLD_RIDE).filter_map(|ride| {
                let part = Part::of_either(told, truth, (reader.who, true), &told.ride(*ride));
                let is_on =
                    truth.intervals_of(&told.ride(*ride), &told.user(reader.who)).any(|one| one.until.is_none());
                part.log.last().filter(|_| is_on).map(|event| event.text.clone())
            });
            let wanted: BTreeSet<_> = ends.collect();
            let got: BTreeSet<_> = segment.items.iter().map(|item| item.text.clone()).collect();
            segment.items.iter().any(|item| item.kind == "notice") && wanted.is_subset(&got)
        }
    }
}

/// Whether a reader of a ride knows where its driver was last.
fn has_last_location(told: &Told, truth: &Truth, reader: &Reading, segment: &Segment) -> bool {
    let Some(ride) = reader.ride.map(|ride| told.ride(ride)) else { return true };
    let driver = truth.rides.get(&ride).and_then(|(_, driver)| driver.as_ref());
    // Where a driver was in a time before on the ride says nothing about this one.
    let is_of_now = |one: &&crate::truth::Location| {
        truth.intervals_of(&ride, &one.driver).any(|own| own.until.is_none() && own.from <= one.seq)
    };
    let mut of_driver = truth.locations.iter().filter(|one| one.ride == ride && Some(&one.driver) == driver);
    let Some(last) = of_driver.find(|one| is_of_now(one)) else {
        return true;
    };
    let user = told.user(reader.who);
    let may_see = reader.who == Who::Support
        || truth.intervals_of(&ride, &user).any(|one| one.until.is_none() && one.from <= last.seq);
    let told = segment.items.iter().rev().find_map(|item| match item.kind.as_str() {
        "ride:location" => Some(item.data()["lat"].clone()),
        "stream:sync" => Some(item.data()["state"]["location"]["lat"].clone()).filter(|lat| !lat.is_null()),
        _ => None,
    });
    !may_see || told.as_ref() == Some(&last.data["lat"])
}

/// Compares all that a reader got with what it should have got.
pub(crate) fn check_reader(told: &Told, truth: &Truth, number: usize, reader: &Reading, problems: &mut Problems) {
    let name = format!("reader {number} ({} of {:?})", reader.who.name(), reader.ride);
    let is_merged = reader.ride.is_none();
    let mut view = View { told, truth, who: reader.who, is_merged, name, places: BTreeMap::new(), own: None, problems };
    for (index, segment) in reader.segments.iter().enumerate() {
        if let Some(fault) = &segment.fault {
            view.problem(Fault::Stream, fault.clone());
        }
        for item in &segment.items {
            view.take(item, reader.ride, index > 0 || segment.after.is_some());
        }
        if let Some(reason) = segment.closing() {
            let is_due = match reader.ride {
                Some(ride) => view.is_at_its_end(ride),
                None => false,
            };
            if !is_due {
                view.problem(Fault::Stream, format!("ended ({reason}) at {:?}", view.places));
            }
        }
    }
    if let Some(last) = reader.segments.last().filter(|last| !last.has_ended && last.is_open()) {
        view.check_end(reader, last);
    }
}

struct View<'a, 'p> {
    told: &'a Told,
    truth: &'a Truth,
    who: Who,
    is_merged: bool,
    name: String,
    /// Up to where each ride's log was delivered.
    places: BTreeMap<String, i64>,
    /// The same of the user's own, once that is known.
    own: Option<i64>,
    problems: &'p mut Problems,
}

impl View<'_, '_> {
    fn problem(&mut self, fault: Fault, text: impl Into<String>) {
        let text = format!("{}: {}", self.name, text.into());
        self.problems.add(fault, text);
    }

    fn part(&self, ride: &str) -> Part<'_> {
        Part::of_either(self.told, self.truth, (self.who, self.is_merged), ride)
    }

    /// Up to where a ride was delivered; where nothing was, to the beginning of the reader's last time on it.
    fn place(&self, ride: &str) -> i64 {
        let begin = self.part(ride).intervals.last().map_or(0, |(from, _)| from - 1);
        self.places.get(ride).copied().unwrap_or(begin)
    }

    /// Whether a ride's reader has got to the end of an interval of its user.
    fn is_at_its_end(&self, ride: usize) -> bool {
        let ride = self.told.ride(ride);
        let place = self.places.get(&ride).copied().unwrap_or(0);
        self.truth.intervals_of(&ride, &self.told.user(self.who)).any(|one| one.until == Some(place))
    }

    fn take(&mut self, item: &Item, of_ride: Option<usize>, resumes: bool) {
        let data = item.data();
        let ride = of_ride.map(|ride| self.told.ride(ride));
        match item.kind.as_str() {
            "stream:sync" => self.take_sync(item, &data, ride.as_deref(), resumes),
            "ride:location" | "typing:indicator" => {
                let ride = data["rideId"].as_str().unwrap_or_default().to_owned();
                self.take_value(&ride, item, &data);
            }
            "presence:online" | "presence:offline" => self.take_presence(&data),
            "stream:closing" | "driver:availability" => {}
            "ride:assigned" | "notice" => self.take_own(item, &data),
            // Of the reader's own topic; that of the ride does not say from where on it is followed.
            "ride:reopened" if of_ride.is_none() && data["fromSeq"].is_i64() => self.take_own(item, &data),
            "ride:closed" => {
                let (closed, last) = (data["rideId"].as_str().unwrap_or_default(), data["lastSeq"].as_i64());
                let place = self.places.get(closed).copied();
                if place.is_some() && self.part(closed).missing(place.unwrap_or(0)).is_some_and(|e| Some(e.seq) <= last)
                {
                    self.problem(Fault::Stream, format!("{data}, but was sent no more than {place:?}"));
                }
                if of_ride.is_none() {
                    self.take_own(item, &data);
                }
            }
            _ => {
                let told = data["rideId"].as_str().or(data["ride"]["rideId"].as_str()).map(str::to_owned);
                match ride.or(told) {
                    Some(ride) => self.take_event(&ride, item, &data, of_ride.is_some()),
                    None => self.problem(Fault::Stream, format!("{} of no ride", item.kind)),
                }
            }
        }
    }

    fn take_sync(&mut self, item: &Item, data: &Value, ride: Option<&str>, resumes: bool) {
        if !data["gap"].is_null() || resumes && data["resumed"] != true {
            self.problem(Fault::Stream, format!("a gap that is none: {}", item.text));
        }
        match ride {
            Some(ride) => {
                let cursor = item.id.as_ref().and_then(|id| id.parse::<i64>().ok()).unwrap_or(-1);
                if let Some(place) = self.places.get(ride).copied() {
                    let skipped = self.part(ride).missing(place).filter(|event| event.seq <= cursor);
                    let skipped = skipped.map(|event| event.seq);
                    if let Some(skipped) = skipped {
                        self.problem(Fault::Stream, format!("goes on after {cursor}, but {skipped} is missing"));
                    }
                }
                let place = self.places.entry(ride.to_owned()).or_insert(cursor);
                *place = cursor.max(*place);
                self.take_state(ride, &data["state"]);
            }
            None => {
                for (ride, state) in data["state"]["rides"].as_object().into_iter().flatten() {
                    if !resumes {
                        self.places.insert(ride.clone(), state["asOf"].as_i64().unwrap_or(0));
                    }
                    self.take_state(ride, state);
                }
            }
        }
    }

    fn take_state(&mut self, ride: &str, state: &Value) {
        let location = &state["location"];
        let as_of = state["asOf"].as_i64().unwrap_or(i64::MAX);
        if !location.is_null() {
            self.check_value(ride, location, "lat", as_of);
        }
    }

    fn take_event(&mut self, ride: &str, item: &Item, data: &Value, has_seq: bool) {
        let place = self.place(ride);
        let seq = item.id.as_ref().and_then(|id| id.parse::<i64>().ok()).filter(|_| has_seq);
        let is_it = |event: &Logged| seq.is_none_or(|seq| seq == event.seq) && is_same(&item.kind, data, event);
        let part = self.part(ride);
        // One who came to the ride after the stream had begun is sent it from there, whichever time that is.
        let is_new = !self.places.contains_key(ride);
        let begins = part.intervals.iter().map(|(from, _)| from - 1).find(|begin| part.next(*begin, is_it).is_ok());
        let place = begins.filter(|_| is_new).unwrap_or(place);
        let next = part.next(place, is_it).map(|event| event.seq).map_err(|event| event.map(|event| event.seq));
        let elsewhere = part.log.iter().find(|event| is_it(event)).map(|event| event.seq);
        let is_theirs = elsewhere.is_some_and(|seq| part.has(seq));
        match (next, elsewhere) {
            (Ok(seq), _) => drop(self.places.insert(ride.to_owned(), seq)),
            (Err(_), None) => {
                self.problem(Fault::Stream, format!("{ride}: not in the log: {:?} {}", item.id, item.text))
            }
            (Err(_), Some(seq)) if !is_theirs => {
                self.problem(Fault::Leak, format!("{ride}: {seq} is not theirs: {}", item.text));
            }
            (Err(next), Some(seq)) => {
                self.problem(Fault::Stream, format!("{ride}: after {place} comes {seq}, not {next:?}"));
                self.places.insert(ride.to_owned(), seq);
            }
        }
    }

    /// An event of the user's own log.
    fn take_own(&mut self, item: &Item, data: &Value) {
        let topic = format!("user/{}", self.told.user(self.who));
        let log = self.truth.logs.get(&topic).map_or(&[][..], Vec::as_slice);
        let found = log.iter().find(|event| event.seq > self.own.unwrap_or(0) && is_same(&item.kind, data, event));
        match (found.map(|event| event.seq), self.own) {
            (Some(seq), before) => {
                if let Some(before) = before.filter(|before| before + 1 != seq) {
                    self.problem(Fault::Stream, format!("their own: after {before} comes {seq}"));
                }
                self.own = Some(seq);
            }
            (None, before) => self.problem(Fault::Stream, format!("their own: after {before:?} comes {}", item.text)),
        }
    }

    fn take_value(&mut self, ride: &str, item: &Item, data: &Value) {
        let place = self.place(ride);
        let known = if item.kind == "ride:location" { "lat" } else { "userId" };
        self.check_value(ride, data, known, place);
    }

    /// A value is theirs, and what it follows was delivered before.
    fn check_value(&mut self, ride: &str, data: &Value, known: &str, place: i64) {
        let of = self.told.operations.iter().filter(|(op, operation)| {
            self.told.ride(operation.ride) == ride
                && match operation.what {
                    What::Locate { .. } => known == "lat" && data["lat"].as_f64() == Some(latitude(**op)),
                    What::Type { who } => known == "userId" && data["userId"] == self.told.user(who),
                    _ => false,
                }
        });
        // That somebody types no longer is true from any later event on: it may be their next message.
        let high = |one: &Operation| one.head_after.filter(|_| data["typing"] != false).unwrap_or(i64::MAX);
        let bounds: Vec<_> = of.map(|(_, one)| (one.head_before, high(one))).collect();
        let part = self.part(ride);
        let may_have = bounds.iter().any(|(low, high)| part.may_have(*low, *high));
        let may_be_there = bounds.iter().any(|(low, _)| *low <= place);
        if !may_have {
            self.problem(Fault::Leak, format!("{ride}: a value that is not theirs: {data}, of {bounds:?}"));
        } else if !may_be_there {
            self.problem(Fault::EarlyValue, format!("{ride}: at {place} comes {data}, of {bounds:?}"));
        }
    }

    /// Nothing is told of those who came when the reader had left.
    fn take_presence(&mut self, data: &Value) {
        let ride = data["rideId"].as_str().unwrap_or_default();
        let user = data["userId"].as_str().unwrap_or_default();
        let came = self.truth.intervals_of(ride, user).map(|one| one.from).min();
        let part = self.part(ride);
        if came.is_none_or(|came| !part.may_have(came, i64::MAX)) {
            self.problem(Fault::Leak, format!("the presence of somebody who came later: {data}"));
        }
    }

    /// What an open stream should have got by the end.
    fn check_end(&mut self, reader: &Reading, segment: &Segment) {
        let user = self.told.user(self.who);
        let rides: Vec<_> = match reader.ride {
            Some(ride) => vec![self.told.ride(ride)],
            None => {
                let on = |ride: &String| self.truth.intervals_of(ride, &user).any(|one| one.until.is_none());
                self.told.rides.iter().filter(|r| **r != OLD_RIDE).map(|r| self.told.ride(*r)).filter(on).collect()
            }
        };
        for ride in rides {
            let place = self.place(&ride);
            let missing = self.part(&ride).missing(place).map(|event| event.seq);
            if let Some(missing) = missing {
                self.problem(Fault::Stream, format!("{ride}: was sent up to {place}, but not {missing}"));
            }
        }
        let log = self.truth.logs.get(&format!("user/{user}"));
        let head = log.and_then(|log| log.last()).map(|event| event.seq);
        if reader.ride.is_none() && self.own != head {
            self.problem(Fault::Stream, format!("their own log was sent up to {:?}, but not {head:?}", self.own));
        }
        if !has_last_location(self.told, self.truth, reader, segment) {
            self.problem(Fault::LastValue, "was not sent the last location");
        }
    }
}
