//! Generated tests of access rights: each event type × each read path × each reader, in two stages of a ride.
//!
//! One ride has five driver assignments. Each assignment has every event type, and events about the messages of all earlier
//! assignments. Every reader uses every read path. An [oracle](oracle) computes the expected result from the log alone, without
//! the server's code. It uses the reader's intervals, the seq of the event, and the seq of the message that the event is about.
//! The types are the server's list: a new type fails the test until it has an entry in [`SCOPES`].

mod collector;
mod fixture;
mod oracle;
mod read_paths;

use std::collections::BTreeMap;

use ridewire::domain::EventType;
use serde_json::{Value, json};

use self::fixture::Fixture;
use self::oracle::Oracle;
use self::read_paths::ReadPath;

/// Where the events of a type are stored or sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// In the ride's log, in each assignment of this test.
    RideEachAssignment,
    /// In the ride's log, in some assignments.
    Ride,
    /// On user topics.
    User,
    /// In the ride's log and on the user topics of its participants.
    RideAndUser,
    /// Only on the feed.
    Feed,
    /// Latest-only or ephemeral, on the ride.
    RideUnlogged,
    /// Latest-only, on the `drivers` topic.
    DispatchUnlogged,
}

/// The scope of each event type. A type without an entry fails the test.
const SCOPES: [(&str, Scope); 21] = [
    ("message:new", Scope::RideEachAssignment),
    ("message:edited", Scope::RideEachAssignment),
    ("message:deleted", Scope::RideEachAssignment),
    ("message:reaction", Scope::RideEachAssignment),
    ("message:read", Scope::RideEachAssignment),
    ("message:delivered", Scope::RideEachAssignment),
    ("ride:accept", Scope::Ride),
    ("ride:cancel", Scope::Ride),
    ("ride:status", Scope::RideEachAssignment),
    ("ride:participants", Scope::RideEachAssignment),
    ("ride:assigned", Scope::User),
    ("ride:closed", Scope::User),
    ("ride:reopened", Scope::RideAndUser),
    ("notice", Scope::User),
    ("message:undelivered", Scope::Feed),
    ("message:flagged", Scope::Feed),
    ("typing:indicator", Scope::RideUnlogged),
    ("presence:online", Scope::RideUnlogged),
    ("presence:offline", Scope::RideUnlogged),
    ("driver:availability", Scope::DispatchUnlogged),
    ("ride:location", Scope::RideUnlogged),
];

/// Returns the scope of an event type.
pub(crate) fn scope(kind: &str) -> Scope {
    let entry = SCOPES.iter().find(|(name, _)| *name == kind);
    entry.unwrap_or_else(|| panic!("{kind}: an event type without an entry in SCOPES")).1
}

/// What a read path returns to a reader, or is expected to return.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// The durable events in order, as (type, key).
    pub(crate) events: Vec<(String, String)>,
    /// What else the path shows about a type: current messages, latest-only values, counts.
    pub(crate) views: BTreeMap<&'static str, Value>,
    /// The whole text that was received.
    pub(crate) text: String,
}

impl Output {
    /// A rejection: each type has the status as its view.
    pub(crate) fn rejected(status: u16, text: String) -> Self {
        let views = SCOPES.iter().map(|(kind, _)| (*kind, json!(status))).collect();
        Self { events: Vec::new(), views, text }
    }

    fn of_type(&self, kind: &str) -> (Vec<&str>, Option<&Value>) {
        let events = self.events.iter().filter(|(name, _)| name == kind).map(|(_, key)| key.as_str());
        let mut events: Vec<_> = events.collect();
        // The order between topics is not specified.
        events.sort_unstable();
        (events, self.views.get(kind))
    }

    /// Returns the events of the ride's log in order.
    fn of_ride(&self) -> Vec<&str> {
        let of_ride = |kind: &str| matches!(scope(kind), Scope::Ride | Scope::RideEachAssignment);
        self.events.iter().filter(|(kind, _)| of_ride(kind)).map(|(_, key)| key.as_str()).collect()
    }
}

/// Counts the cases and collects the failures.
struct Checker {
    cases: usize,
    failed: Vec<String>,
}

impl Checker {
    async fn check_all(&mut self, fixture: &Fixture, stage: &str) {
        let oracle = Oracle::of(fixture).await;
        oracle.assert_complete();
        for reader in &fixture.readers {
            for via in ReadPath::ALL {
                let found = fixture.read(via, reader, &oracle).await;
                let expected = oracle.expected(via, reader);
                for kind in EventType::ALL {
                    let kind = kind.as_str();
                    self.cases += 1;
                    let case = format!("{stage} / {} / {via:?} / {kind}", reader.label);
                    let leaked: Vec<_> = oracle
                        .forbidden_words(kind, via, reader)
                        .into_iter()
                        .filter(|word| found.text.contains(word.as_str()))
                        .collect();
                    if !leaked.is_empty() {
                        self.failed
                            .push(format!("{case}: contains text of events that the reader may not see: {leaked:?}"));
                    }
                    let (has, should) = (found.of_type(kind), expected.of_type(kind));
                    if has != should {
                        let extra: Vec<_> = has.0.iter().filter(|key| !should.0.contains(key)).collect();
                        let missing: Vec<_> = should.0.iter().filter(|key| !has.0.contains(key)).collect();
                        self.failed.push(format!(
                            "{case}: leaked {extra:?}, missing {missing:?}, {} events for {}; shows {:?} for {:?}",
                            has.0.len(),
                            should.0.len(),
                            has.1,
                            should.1
                        ));
                    }
                }
                // In the order of the log, each event once.
                if found.of_ride() != expected.of_ride() {
                    self.failed.push(format!("{stage} / {} / {via:?}: wrong order", reader.label));
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_type_on_each_read_path_reaches_exactly_the_readers_with_access() {
    for kind in EventType::ALL {
        scope(kind.as_str());
    }
    assert_eq!(EventType::ALL.len(), SCOPES.len(), "each entry is of an existing type");
    let mut checker = Checker { cases: 0, failed: Vec::new() };
    let mut fixture = Fixture::create().await;
    // The driver of the second assignment returns in the fourth.
    for assignment in 0..4 {
        fixture.begin_assignment(assignment).await;
        fixture.fill_assignment(assignment).await;
    }
    fixture.finish_stage("returned").await;
    checker.check_all(&fixture, "driver returned").await;
    // That driver is replaced again. The ride ends and is reopened.
    fixture.begin_assignment(4).await;
    fixture.fill_assignment(4).await;
    fixture.end_and_reopen().await;
    fixture.finish_stage("end").await;
    checker.check_all(&fixture, "ended").await;

    // Two stages, eight readers, 21 read paths, 21 types.
    let (stages, readers, read_paths, types) = (2, 8, 21, 21);
    assert_eq!(
        (fixture.readers.len(), ReadPath::ALL.len(), EventType::ALL.len(), checker.cases),
        (readers, read_paths, types, stages * readers * read_paths * types),
        "each combination is one case: 7,056"
    );
    let shown = checker.failed.iter().take(60).cloned().collect::<Vec<_>>().join("\n");
    assert!(checker.failed.is_empty(), "{} of {} cases:\n{shown}", checker.failed.len(), checker.cases);
}
