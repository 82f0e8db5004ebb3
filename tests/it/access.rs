//! Access rights, generated: each type of event × each way out × each reader, after each of two histories of a ride.
//!
//! One ride has five drivers' times, with every type of event in each of them, and with events in each that concern the messages of
//! all earlier ones. Then every reader takes every way out. What each of them should find is computed from the log alone by an
//! [oracle](oracle) that knows nothing of the server's code: a reader's intervals, the seq of the event, and the seq of the
//! message that it concerns. The types are the server's own list, so a new type fails here until it has its place.

mod live;
mod oracle;
mod ways;
mod world;

use std::collections::BTreeMap;

use ridewire::domain::EventType;
use serde_json::{Value, json};

use self::oracle::Oracle;
use self::ways::Way;
use self::world::World;

/// Where events of a type are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the log of the ride, in every interval of this test.
    RideOften,
    /// In the log of the ride, in some of them.
    Ride,
    /// In the logs of users.
    User,
    /// In the log of the ride, and of its participants.
    Both,
    /// On the feed alone.
    Feed,
    /// A value of the ride's, without a log.
    RideValue,
    /// A value of dispatch.
    Drivers,
}

/// Each type has an entry: one without fails the test.
const PLACES: [(&str, Place); 21] = [
    ("message:new", Place::RideOften),
    ("message:edited", Place::RideOften),
    ("message:deleted", Place::RideOften),
    ("message:reaction", Place::RideOften),
    ("message:read", Place::RideOften),
    ("message:delivered", Place::RideOften),
    ("ride:accept", Place::Ride),
    ("ride:cancel", Place::Ride),
    ("ride:status", Place::RideOften),
    ("ride:participants", Place::RideOften),
    ("ride:assigned", Place::User),
    ("ride:closed", Place::User),
    ("ride:reopened", Place::Both),
    ("notice", Place::User),
    ("message:undelivered", Place::Feed),
    ("message:flagged", Place::Feed),
    ("typing:indicator", Place::RideValue),
    ("presence:online", Place::RideValue),
    ("presence:offline", Place::RideValue),
    ("driver:availability", Place::Drivers),
    ("ride:location", Place::RideValue),
];

/// Where events of this type are.
pub(crate) fn place(kind: &str) -> Place {
    let known = PLACES.iter().find(|(name, _)| *name == kind);
    known.unwrap_or_else(|| panic!("{kind}: a type of events without an entry in PLACES: who may see it?")).1
}

/// What a way out shows to a reader, and what it should show.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// The durable events, in order, each by a key.
    pub(crate) events: Vec<(String, String)>,
    /// What it shows of a type otherwise: of messages as they are now, of values, of counts.
    pub(crate) views: BTreeMap<&'static str, Value>,
    /// All that was received.
    pub(crate) text: String,
}

impl Shown {
    /// The same refusal, whatever was asked for.
    pub(crate) fn refused(status: u16, text: String) -> Self {
        let views = PLACES.iter().map(|(kind, _)| (*kind, json!(status))).collect();
        Self { events: Vec::new(), views, text }
    }

    fn of(&self, kind: &str) -> (Vec<&str>, Option<&Value>) {
        let events = self.events.iter().filter(|(name, _)| name == kind).map(|(_, key)| key.as_str());
        let mut events: Vec<_> = events.collect();
        // How topics alternate is free.
        events.sort_unstable();
        (events, self.views.get(kind))
    }

    /// The events of the ride's log alone, in their order.
    fn of_ride(&self) -> Vec<&str> {
        let of_ride = |kind: &str| matches!(place(kind), Place::Ride | Place::RideOften);
        self.events.iter().filter(|(kind, _)| of_ride(kind)).map(|(_, key)| key.as_str()).collect()
    }
}

/// How the cases of one look at the ride are checked.
struct Checked {
    cases: usize,
    failed: Vec<String>,
}

impl Checked {
    async fn look(&mut self, world: &World, stage: &str) {
        let oracle = Oracle::of(world).await;
        oracle.has_everything();
        for reader in &world.readers {
            for way in Way::ALL {
                let found = world.take(way, reader, &oracle).await;
                let expected = oracle.expected(way, reader);
                for kind in EventType::ALL {
                    let kind = kind.as_str();
                    self.cases += 1;
                    let case = format!("{stage} / {} / {way:?} / {kind}", reader.label);
                    let leaked: Vec<_> = oracle
                        .forbidden_words(kind, way, reader)
                        .into_iter()
                        .filter(|word| found.text.contains(word.as_str()))
                        .collect();
                    if !leaked.is_empty() {
                        self.failed.push(format!("{case}: has words of events that are not the reader's: {leaked:?}"));
                    }
                    let (has, should) = (found.of(kind), expected.of(kind));
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
                // In the log's order, each once.
                if found.of_ride() != expected.of_ride() {
                    self.failed.push(format!("{stage} / {} / {way:?}: in another order", reader.label));
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_of_event_by_every_way_out_reaches_exactly_the_readers_whose_it_is() {
    for kind in EventType::ALL {
        place(kind.as_str());
    }
    assert_eq!(EventType::ALL.len(), PLACES.len(), "each entry is of a type that there is");
    let mut checked = Checked { cases: 0, failed: Vec::new() };
    let mut world = World::create().await;
    // The driver of the second time is back.
    for time in 0..4 {
        world.begin_time(time).await;
        world.fill_time(time).await;
    }
    world.settle("back").await;
    checked.look(&world, "put back").await;
    // And is replaced again; the ride ends, and is reopened.
    world.begin_time(4).await;
    world.fill_time(4).await;
    world.end_and_reopen().await;
    world.settle("end").await;
    checked.look(&world, "ended").await;

    // Two looks, eight readers, 21 ways out, 21 types.
    let (stages, readers, ways, types) = (2, 8, 21, 21);
    assert_eq!(
        (world.readers.len(), Way::ALL.len(), EventType::ALL.len(), checked.cases),
        (readers, ways, types, stages * readers * ways * types),
        "as many cases as there are combinations: 7,056"
    );
    let shown = checked.failed.iter().take(60).cloned().collect::<Vec<_>>().join("\n");
    assert!(checked.failed.is_empty(), "{} of {} cases:\n{shown}", checked.failed.len(), checked.cases);
}
