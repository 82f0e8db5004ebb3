//! A ride with five times of drivers, and all types of events in each.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::live::Collector;
use crate::moderation::receiver::{Hook, Reply, allow};
use crate::support::{Database, Role, Server, User, eventually};

pub(crate) const RIDE: &str = "ride_1";

/// The drivers of the five times. The second one is put back in the fourth.
pub(crate) const DRIVERS: [&str; 5] = ["driver_old", "driver_back", "driver_between", "driver_back", "driver_new"];

/// A reaction for each time and each time of a message before.
const EMOJIS: [&str; 15] = ["👍", "👎", "😀", "😎", "🚕", "🚗", "🎉", "🔥", "🍀", "🌍", "🐶", "🐱", "🍎", "🍌", "🎈"];

/// Somebody who reads.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) label: &'static str,
    pub(crate) user: User,
}

impl Reader {
    pub(crate) fn is_staff(&self) -> bool {
        matches!(self.user.role, Role::Support | Role::Service)
    }
}

/// The messages of a time that later events concern.
#[derive(Debug, Default)]
struct Subjects {
    edited: Value,
    reacted: Value,
    read: Value,
    delivered: Value,
    /// One for each time in which one of them is deleted.
    deleted: BTreeMap<usize, Value>,
}

/// The ride, its readers, and what they have received live.
pub(crate) struct World {
    // Dropped before its database.
    pub(crate) server: Server,
    pub(crate) database: Database,
    pub(crate) readers: Vec<Reader>,
    /// What was said in each message, by its id, also where it was deleted since.
    pub(crate) said: BTreeMap<String, String>,
    /// Streams of everything, from before the ride began.
    pub(crate) live_merged: BTreeMap<&'static str, Collector>,
    /// Streams of the ride, each with the position after which it began.
    pub(crate) live_ride: Vec<(&'static str, i64, Collector)>,
    subjects: Vec<Subjects>,
    /// The content of the last message, which all who may read it wait for.
    pub(crate) marker: String,
    _hook: Hook,
}

impl World {
    pub(crate) async fn create() -> Self {
        let database = Database::create().await;
        let hook = Hook::start(|data| {
            let is_odd = data["content"].as_str().is_some_and(|content| content.contains("odd-"));
            if is_odd { Reply::Json(json!({ "action": "flag", "labels": ["oddity_label"] })) } else { allow() }
        })
        .await;
        let mut settings = hook.settings().to_vec();
        settings.extend([("RIDEWIRE_PRESENCE_GRACE", "1h"), ("RIDEWIRE_PUSH_AFTER", "50ms")]);
        let server = Server::with(&database, &settings).await;
        let reader = |label, user| Reader { label, user };
        let readers = vec![
            reader("old driver", server.driver("driver_old")),
            reader("put back", server.driver("driver_back")),
            reader("between", server.driver("driver_between")),
            reader("new driver", server.driver("driver_new")),
            reader("never", server.driver("driver_never")),
            reader("rider", server.rider("rider_1")),
            reader("support", server.support()),
            reader("service", server.service()),
        ];
        let mut live_merged = BTreeMap::new();
        for reader in &readers {
            let collector = Collector::start(&reader.user, "events").await;
            live_merged.insert(reader.label, collector);
        }
        let world = Self {
            server,
            database,
            readers,
            said: BTreeMap::new(),
            live_merged,
            live_ride: Vec::new(),
            subjects: Vec::new(),
            marker: String::new(),
            _hook: hook,
        };
        let available = json!({ "available": true, "lat": 1.5, "lng": 2.5 });
        world.user("driver_never").put("drivers/me/availability", available).await.expect(200);
        for staff in ["support", "service"] {
            world.live_merged[staff].until("driver:availability", "driver_never").await;
        }
        world
    }

    pub(crate) fn user(&self, name: &str) -> &User {
        &self.readers.iter().find(|reader| reader.user.name == name).unwrap().user
    }

    pub(crate) fn reader(&self, label: &str) -> &Reader {
        self.readers.iter().find(|reader| reader.label == label).unwrap()
    }

    fn rider(&self) -> &User {
        self.user("rider_1")
    }

    /// Whoever drives in a time, as a reader.
    fn driver(&self, time: usize) -> &Reader {
        self.readers.iter().find(|reader| reader.user.name == DRIVERS[time]).unwrap()
    }

    async fn say(&mut self, name: &str, content: String) -> Value {
        let sent = self.user(name).send(RIDE, &content).await;
        self.said.insert(sent["id"].as_str().unwrap().to_owned(), content);
        sent
    }

    async fn follow(&mut self, label: &'static str, after: i64) {
        let path = format!("messages/rides/{RIDE}/events?after={after}");
        let collector = Collector::start(&self.reader(label).user, &path).await;
        self.live_ride.push((label, after, collector));
    }

    /// Puts the driver of a time on the ride: at once, in the place of the one before; or after that one was removed.
    pub(crate) async fn begin_time(&mut self, time: usize) {
        let (service, driver) = (self.server.service(), DRIVERS[time]);
        match time {
            0 => drop(service.put_ride(RIDE, "rider_1", Some(driver)).await.expect(201)),
            1 | 4 => drop(service.put_ride(RIDE, "rider_1", Some(driver)).await.expect(200)),
            _ => {
                service.put(&format!("rides/{RIDE}"), json!({ "driverId": null })).await.expect(200);
                self.user(driver).post_nothing(&format!("rides/{RIDE}/accept")).await.expect(200);
            }
        }
        let joined = "select max(seq) from events where topic = 'ride/ride_1' and type = 'ride:participants'";
        let from: i64 = self.database.client().await.query_one(joined, &[]).await.unwrap().get(0);
        if time == 0 {
            for label in ["rider", "support", "service"] {
                self.follow(label, 0).await;
            }
        }
        let label = self.driver(time).label;
        self.follow(label, from - 1).await;
        for (label, _, live) in &self.live_ride {
            if ["rider", "support", "service"].contains(label) {
                live.until_online(driver).await;
            }
        }
        self.live_merged["rider"].until_online(driver).await;
    }

    /// Everything that can happen in a time, and to the messages of the times before.
    pub(crate) async fn fill_time(&mut self, time: usize) {
        let driver = DRIVERS[time];
        let mut subjects = Subjects::default();
        for later in time..DRIVERS.len() {
            let message = self.say("rider_1", format!("word-deleted-{time}-{later}-")).await;
            subjects.deleted.insert(later, message);
        }
        subjects.edited = self.say("rider_1", format!("word-original-{time}-")).await;
        subjects.reacted = self.say("rider_1", format!("word-reacted-{time}-")).await;
        subjects.read = self.say("rider_1", format!("word-read-{time}-")).await;
        subjects.delivered = self.say("rider_1", format!("word-delivered-{time}-")).await;
        self.say("rider_1", format!("odd-word-flagged-{time}-")).await;
        let of_driver = self.say(driver, format!("word-driver-{time}-")).await;
        self.say("support_1", format!("word-support-{time}-")).await;
        self.say("platform", format!("word-platform-{time}-")).await;
        self.subjects.push(subjects);

        let rider = self.rider().clone();
        for (before, subjects) in self.subjects.iter().enumerate() {
            rider.edit(&subjects.edited, &format!("word-edited-{before}-{time}-")).await.expect(200);
            let emoji = EMOJIS[time * (time + 1) / 2 + before];
            let reaction = format!("messages/{}/reactions/{emoji}", subjects.reacted["id"].as_str().unwrap());
            rider.put(&reaction, json!({})).await.expect(204);
            let reads = self.server.user(&format!("support_reads_{before}_{time}"), Role::Support);
            reads.mark(&subjects.read, "read").await.expect(200);
            let has = self.server.user(&format!("support_has_{before}_{time}"), Role::Support);
            has.mark(&subjects.delivered, "delivered").await.expect(200);
            rider.erase(&subjects.deleted[&time]).await.expect(204);
        }
        self.user(driver).mark(&self.subjects[time].read, "read").await.expect(200);
        rider.mark(&of_driver, "delivered").await.expect(200);
        let grace = json!({ "rider": 100_000 + time, "driver": 100_000 + time });
        let policy = json!({ "chatPolicy": { "opensAt": "accepted", "graceSeconds": grace } });
        self.server.service().put(&format!("rides/{RIDE}"), policy).await.expect(200);

        let (lat, typing) = (lat(time), json!({ "typing": true }));
        self.user(driver).post(&format!("rides/{RIDE}/location"), json!({ "lat": lat, "lng": 1 })).await.expect(202);
        for name in ["rider_1", driver] {
            self.user(name).post(&format!("messages/rides/{RIDE}/typing"), typing.clone()).await.expect(202);
        }
        // Values are told as such: whoever is there has them before they change.
        let there = self.driver(time).label;
        for label in [there, "rider", "support", "service"] {
            let mut streams: Vec<_> =
                self.live_ride.iter().filter(|(of, ..)| *of == label).map(|(.., live)| live).collect();
            streams = streams.pop().into_iter().collect();
            if !self.reader(label).is_staff() {
                streams.push(&self.live_merged[label]);
            }
            for live in streams {
                live.until("ride:location", &lat.to_string()).await;
                let own = &self.reader(label).user.name;
                let times_of = |name: &str| DRIVERS.iter().take(time + 1).filter(|driver| **driver == name).count();
                if own != "rider_1" {
                    // As often as they were there; staff always.
                    let times = if label == there { times_of(driver) } else { time + 1 };
                    let since = if label == there && live.is_of_ride() { 1 } else { times };
                    live.until_typed("rider_1", since).await;
                }
                if own != driver {
                    live.until_typed(driver, times_of(driver)).await;
                }
            }
        }
    }

    /// The ride ends and is reopened, within the last time.
    pub(crate) async fn end_and_reopen(&mut self) {
        let reason = json!({ "reason": "word-cancelled-" });
        self.server.support().post(&format!("rides/{RIDE}/cancel"), reason).await.expect(200);
        // No sooner than it would have closed: so this is another end.
        let until: jiff::Timestamp = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * 7);
        let until = json!({ "until": until.to_string(), "reason": "word-reopened-" });
        self.server.service().post(&format!("rides/{RIDE}/reopen"), until).await.expect(200);
    }

    /// The last message, and a last notice to everybody; waits until the live streams have them, and the feed has all.
    pub(crate) async fn settle(&mut self, stage: &str) {
        self.marker = format!("word-marker-{stage}-");
        self.say("rider_1", self.marker.clone()).await;
        for reader in &self.readers {
            let word = json!({ "word": notice(stage, &reader.user.name) });
            self.server.service().broadcast(&[&reader.user.name], word).await.expect(202);
        }
        let time = self.subjects.len() - 1;
        for reader in &self.readers {
            let (label, name) = (reader.label, reader.user.name.as_str());
            let merged = &self.live_merged[label];
            merged.until("notice", &notice(stage, name)).await;
            let is_there = [DRIVERS[time], "rider_1"].contains(&name);
            if is_there {
                merged.until("message:new", &self.marker).await;
            }
            if is_there || reader.is_staff() {
                let (.., live) = self.live_ride.iter().rev().find(|(of, ..)| *of == label).unwrap();
                live.until("message:new", &self.marker).await;
            }
        }
        let client = self.database.client().await;
        eventually("the feed has everything", async || {
            let waiting = client.query_one("select count(*) from feed_batches", &[]).await.unwrap();
            (waiting.get::<_, i64>(0) == 0).then_some(())
        })
        .await;
        let undelivered = "select count(*) from undelivered";
        eventually("a message is undelivered", async || {
            (client.query_one(undelivered, &[]).await.unwrap().get::<_, i64>(0) > 0).then_some(())
        })
        .await;
    }
}

/// Where the driver of a time is.
pub(crate) fn lat(time: usize) -> f64 {
    // One that is written in full, whoever prints it.
    10.0 + f64::from(u32::try_from(time).unwrap()) + 0.015_625
}

pub(crate) fn notice(stage: &str, user: &str) -> String {
    format!("word-notice-{stage}-{user}-")
}
