//! A ride with five driver assignments and all event types in each.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::collector::Collector;
use crate::moderation::hook::{Hook, Reply, allow};
use crate::support::{Database, Role, Server, User, eventually};

pub(crate) const RIDE: &str = "ride_1";

/// The drivers of the five assignments. The second driver returns in the fourth.
pub(crate) const DRIVERS: [&str; 5] =
    ["driver_old", "driver_returning", "driver_interim", "driver_returning", "driver_new"];

/// An emoji for each pair of an assignment and an earlier (or the same) assignment whose message gets the reaction.
const EMOJIS: [&str; 15] = ["👍", "👎", "😀", "😎", "🚕", "🚗", "🎉", "🔥", "🍀", "🌍", "🐶", "🐱", "🍎", "🍌", "🎈"];

/// A user that reads the ride.
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

/// The messages of an assignment that later events change.
#[derive(Debug, Default)]
struct Targets {
    edited: Value,
    reacted: Value,
    read: Value,
    delivered: Value,
    /// A message for each later assignment, which deletes it.
    deleted: BTreeMap<usize, Value>,
}

/// The ride, its readers and their live streams.
pub(crate) struct Fixture {
    // Declared first, so that the server is dropped before its database.
    pub(crate) server: Server,
    pub(crate) database: Database,
    pub(crate) readers: Vec<Reader>,
    /// The original content of each message by its id, also of deleted messages.
    pub(crate) contents: BTreeMap<String, String>,
    /// Merged streams, opened before the ride was created.
    pub(crate) live_merged: BTreeMap<&'static str, Collector>,
    /// Streams of the ride, each with its `after` cursor.
    pub(crate) live_ride: Vec<(&'static str, i64, Collector)>,
    targets: Vec<Targets>,
    /// The content of the last message. Streams with access wait for it.
    pub(crate) marker: String,
    _hook: Hook,
}

impl Fixture {
    pub(crate) async fn create() -> Self {
        let database = Database::create().await;
        let hook = Hook::start(|data| {
            let is_odd = data["content"].as_str().is_some_and(|content| content.contains("odd-"));
            if is_odd { Reply::Json(json!({ "action": "flag", "labels": ["oddity_label"] })) } else { allow() }
        })
        .await;
        let mut settings = hook.settings().to_vec();
        settings.extend([("RIDEWIRE_PRESENCE_GRACE", "1h"), ("RIDEWIRE_PUSH_AFTER", "50ms")]);
        let server = Server::start_with(&database, &settings).await;
        let reader = |label, user| Reader { label, user };
        let readers = vec![
            reader("old driver", server.driver("driver_old")),
            reader("returning driver", server.driver("driver_returning")),
            reader("interim driver", server.driver("driver_interim")),
            reader("new driver", server.driver("driver_new")),
            reader("unassigned driver", server.driver("driver_unassigned")),
            reader("rider", server.rider("rider_1")),
            reader("support", server.support()),
            reader("service", server.service()),
        ];
        let mut live_merged = BTreeMap::new();
        for reader in &readers {
            let collector = Collector::start(&reader.user, "events").await;
            live_merged.insert(reader.label, collector);
        }
        let fixture = Self {
            server,
            database,
            readers,
            contents: BTreeMap::new(),
            live_merged,
            live_ride: Vec::new(),
            targets: Vec::new(),
            marker: String::new(),
            _hook: hook,
        };
        let available = json!({ "available": true, "lat": 1.5, "lng": 2.5 });
        fixture.user("driver_unassigned").put("drivers/me/availability", available).await.expect(200);
        for staff in ["support", "service"] {
            fixture.live_merged[staff].until("driver:availability", "driver_unassigned").await;
        }
        fixture
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

    /// Returns the driver of an assignment.
    fn driver(&self, assignment: usize) -> &Reader {
        self.readers.iter().find(|reader| reader.user.name == DRIVERS[assignment]).unwrap()
    }

    async fn send(&mut self, name: &str, content: String) -> Value {
        let sent = self.user(name).send(RIDE, &content).await;
        self.contents.insert(sent["id"].as_str().unwrap().to_owned(), content);
        sent
    }

    async fn open_stream(&mut self, label: &'static str, after: i64) {
        let path = format!("messages/rides/{RIDE}/events?after={after}");
        let collector = Collector::start(&self.reader(label).user, &path).await;
        self.live_ride.push((label, after, collector));
    }

    /// Assigns a driver: replaces the previous driver directly, or removes the previous driver first.
    pub(crate) async fn begin_assignment(&mut self, assignment: usize) {
        let (service, driver) = (self.server.service(), DRIVERS[assignment]);
        match assignment {
            0 => drop(service.put_ride(RIDE, "rider_1", Some(driver)).await.expect(201)),
            1 | 4 => drop(service.put_ride(RIDE, "rider_1", Some(driver)).await.expect(200)),
            _ => {
                service.put(&format!("rides/{RIDE}"), json!({ "driverId": null })).await.expect(200);
                self.user(driver).post_empty(&format!("rides/{RIDE}/accept")).await.expect(200);
            }
        }
        let joined = "select max(seq) from events where topic = 'ride/ride_1' and type = 'ride:participants'";
        let from: i64 = self.database.client().await.query_one(joined, &[]).await.unwrap().get(0);
        if assignment == 0 {
            for label in ["rider", "support", "service"] {
                self.open_stream(label, 0).await;
            }
        }
        let label = self.driver(assignment).label;
        self.open_stream(label, from - 1).await;
        for (label, _, live) in &self.live_ride {
            if ["rider", "support", "service"].contains(label) {
                live.until_online(driver).await;
            }
        }
        self.live_merged["rider"].until_online(driver).await;
    }

    /// Creates every event type in an assignment, also about the messages of the earlier assignments.
    pub(crate) async fn fill_assignment(&mut self, assignment: usize) {
        let driver = DRIVERS[assignment];
        let mut targets = Targets::default();
        for later in assignment..DRIVERS.len() {
            let message = self.send("rider_1", format!("word-deleted-{assignment}-{later}-")).await;
            targets.deleted.insert(later, message);
        }
        targets.edited = self.send("rider_1", format!("word-original-{assignment}-")).await;
        targets.reacted = self.send("rider_1", format!("word-reacted-{assignment}-")).await;
        targets.read = self.send("rider_1", format!("word-read-{assignment}-")).await;
        targets.delivered = self.send("rider_1", format!("word-delivered-{assignment}-")).await;
        self.send("rider_1", format!("odd-word-flagged-{assignment}-")).await;
        let of_driver = self.send(driver, format!("word-driver-{assignment}-")).await;
        self.send("support_1", format!("word-support-{assignment}-")).await;
        self.send("platform", format!("word-platform-{assignment}-")).await;
        self.targets.push(targets);

        let rider = self.rider().clone();
        for (before, targets) in self.targets.iter().enumerate() {
            rider.edit(&targets.edited, &format!("word-edited-{before}-{assignment}-")).await.expect(200);
            let emoji = EMOJIS[assignment * (assignment + 1) / 2 + before];
            let reaction = format!("messages/{}/reactions/{emoji}", targets.reacted["id"].as_str().unwrap());
            rider.put(&reaction, json!({})).await.expect(204);
            let reads = self.server.user(&format!("support_reads_{before}_{assignment}"), Role::Support);
            reads.mark(&targets.read, "read").await.expect(200);
            let has = self.server.user(&format!("support_has_{before}_{assignment}"), Role::Support);
            has.mark(&targets.delivered, "delivered").await.expect(200);
            rider.delete_message(&targets.deleted[&assignment]).await.expect(204);
        }
        self.user(driver).mark(&self.targets[assignment].read, "read").await.expect(200);
        rider.mark(&of_driver, "delivered").await.expect(200);
        let grace = json!({ "rider": 100_000 + assignment, "driver": 100_000 + assignment });
        let policy = json!({ "chatPolicy": { "opensAt": "accepted", "graceSeconds": grace } });
        self.server.service().put(&format!("rides/{RIDE}"), policy).await.expect(200);

        let (lat, typing) = (latitude(assignment), json!({ "typing": true }));
        self.user(driver).post(&format!("rides/{RIDE}/location"), json!({ "lat": lat, "lng": 1 })).await.expect(202);
        for name in ["rider_1", driver] {
            self.user(name).post(&format!("messages/rides/{RIDE}/typing"), typing.clone()).await.expect(202);
        }
        // Latest-only values are conflated. Wait until each reader has them before they change.
        let current = self.driver(assignment).label;
        for label in [current, "rider", "support", "service"] {
            let mut streams: Vec<_> =
                self.live_ride.iter().filter(|(of, ..)| *of == label).map(|(.., live)| live).collect();
            streams = streams.pop().into_iter().collect();
            if !self.reader(label).is_staff() {
                streams.push(&self.live_merged[label]);
            }
            for live in streams {
                live.until("ride:location", &lat.to_string()).await;
                let own = &self.reader(label).user.name;
                let assignments_of =
                    |name: &str| DRIVERS.iter().take(assignment + 1).filter(|driver| **driver == name).count();
                if own != "rider_1" {
                    // A driver gets them in each own assignment, staff in all assignments.
                    let times = if label == current { assignments_of(driver) } else { assignment + 1 };
                    let expected = if label == current && live.is_ride_stream() { 1 } else { times };
                    live.until_typed("rider_1", expected).await;
                }
                if own != driver {
                    live.until_typed(driver, assignments_of(driver)).await;
                }
            }
        }
    }

    /// Ends and reopens the ride in the last assignment.
    pub(crate) async fn end_and_reopen(&mut self) {
        let reason = json!({ "reason": "word-cancelled-" });
        self.server.support().post(&format!("rides/{RIDE}/cancel"), reason).await.expect(200);
        // Reopening cannot set an earlier end than the chat window had. Use a later one.
        let until: jiff::Timestamp = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * 7);
        let until = json!({ "until": until.to_string(), "reason": "word-reopened-" });
        self.server.service().post(&format!("rides/{RIDE}/reopen"), until).await.expect(200);
    }

    /// Sends the last message and a notice to each reader. Waits until the live streams and the feed have everything.
    pub(crate) async fn finish_stage(&mut self, stage: &str) {
        self.marker = format!("word-marker-{stage}-");
        self.send("rider_1", self.marker.clone()).await;
        for reader in &self.readers {
            let word = json!({ "word": notice_text(stage, &reader.user.name) });
            self.server.service().broadcast(&[&reader.user.name], word).await.expect(202);
        }
        let assignment = self.targets.len() - 1;
        for reader in &self.readers {
            let (label, name) = (reader.label, reader.user.name.as_str());
            let merged = &self.live_merged[label];
            merged.until("notice", &notice_text(stage, name)).await;
            let is_assigned = [DRIVERS[assignment], "rider_1"].contains(&name);
            if is_assigned {
                merged.until("message:new", &self.marker).await;
            }
            if is_assigned || reader.is_staff() {
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

/// Returns the latitude of an assignment's driver.
pub(crate) fn latitude(assignment: usize) -> f64 {
    // The value is exact in binary, so each formatter prints the same digits.
    10.0 + f64::from(u32::try_from(assignment).unwrap()) + 0.015_625
}

pub(crate) fn notice_text(stage: &str, user: &str) -> String {
    format!("word-notice-{stage}-{user}-")
}
