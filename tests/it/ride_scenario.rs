//! A complete ride with all participants. Each participant's events are compared with those that they may see.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::{Database, Event, Server, Stream, User, eventually};

const SETTINGS: [(&str, &str); 1] = [("RIDEWIRE_CHAT_GRACE", "1s")];

/// All users, each on one of two replicas.
struct Users {
    one: Server,
    two: Server,
    rider: User,
    first: User,
    second: User,
    support: User,
    dispatch: User,
}

impl Users {
    async fn create(database: &Database) -> Self {
        let (one, two) = (Server::start_with(database, &SETTINGS).await, Server::start_with(database, &SETTINGS).await);
        Self {
            rider: one.rider("rider_1"),
            first: two.driver("driver_1"),
            second: one.driver("driver_2"),
            support: two.support(),
            dispatch: one.service(),
            one,
            two,
        }
    }

    async fn request(&self, ride: &str) {
        self.dispatch.put_ride(ride, "rider_1", None).await.expect(201);
    }

    async fn accept(&self, ride: &str) {
        self.first.post_empty(&format!("rides/{ride}/accept")).await.expect(200);
    }

    /// The part with the first driver.
    async fn run_first_part(&self, ride: &str) {
        self.rider.post(&format!("messages/rides/{ride}/typing"), json!({ "typing": true })).await.expect(202);
        let hello = self.rider.send(ride, "Hello").await;
        self.first.mark(&hello, "read").await.expect(200);
        let reaction = format!("messages/{}/reactions/%F0%9F%91%8D", hello["id"].as_str().unwrap());
        self.first.put(&reaction, json!({})).await.expect(204);
        self.first.send(ride, "On my way").await;
        self.rider.edit(&hello, "Hello!").await.expect(200);
    }

    async fn replace(&self, ride: &str) {
        self.dispatch.put_ride(ride, "rider_1", Some("driver_2")).await.expect(200);
    }

    /// The part with the second driver, up to the end of the ride.
    async fn run_second_part(&self, ride: &str) {
        let wrong = self.rider.send(ride, "At the wrong gate").await;
        let there = json!({ "lat": 52.5, "lng": 13.4 });
        self.second.post(&format!("rides/{ride}/location"), there).await.expect(202);
        self.second.send(ride, "Which gate?").await;
        self.support.send(ride, "Support is here").await;
        self.rider.delete_message(&wrong).await.expect(204);
        for status in ["arrived", "in_progress", "completed"] {
            self.second.set_status(ride, status).await.expect(200);
        }
    }
}

/// Reads a stream to its end: the durable events, and the others.
async fn read_stream(mut stream: Stream) -> (Vec<(i64, String)>, Vec<String>) {
    let events = stream.until_end().await;
    let durable = events.iter().filter(|event| event.id.is_some()).map(|event| (event.seq(), event.kind.clone()));
    let others = events.iter().filter(|event| event.id.is_none()).map(|event| event.kind.clone());
    (durable.collect(), others.collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_participant_sees_exactly_their_part_of_the_log() {
    let database = Database::create().await;
    let users = Users::create(&database).await;
    users.request("ride_1").await;
    let [rider, support, dispatch] = [
        users.two.live_stream(&users.rider, "ride_1").await,
        users.one.live_stream(&users.support, "ride_1").await,
        users.two.live_stream(&users.dispatch, "ride_1").await,
    ];
    users.accept("ride_1").await;
    let first = users.one.live_stream(&users.first, "ride_1").await;
    users.run_first_part("ride_1").await;
    users.replace("ride_1").await;
    let second = users.two.live_stream(&users.second, "ride_1").await;
    users.run_second_part("ride_1").await;

    let script = [
        "ride:participants",
        "ride:participants",
        "ride:accept",
        "message:new",
        "message:read",
        "message:reaction",
        "message:new",
        "message:edited",
        "ride:participants",
        "message:new",
        "message:new",
        "message:new",
        "message:deleted",
        "ride:status",
        "ride:status",
        "ride:status",
    ];
    let part = |from: i64, to: i64| -> Vec<(i64, String)> {
        let numbered = (1..).zip(script).filter(|(seq, _)| (from..=to).contains(seq));
        numbered.map(|(seq, kind)| (seq, kind.to_owned())).collect()
    };
    // A user gets no own typing events. A location is sent to all current participants.
    let typing = ["typing:indicator", "typing:indicator"];
    let whole = ["ride:location", "stream:closing"];
    for (name, stream, (from, to), expected) in [
        ("rider", rider, (2, 16), [&whole[..], &[]].concat()),
        ("support", support, (2, 16), [&typing[..], &whole].concat()),
        ("dispatch", dispatch, (2, 16), [&typing[..], &whole].concat()),
        ("first driver", first, (4, 9), [&typing[..], &["stream:closing"]].concat()),
        ("second driver", second, (10, 16), whole.to_vec()),
    ] {
        let (durable, mut seen) = read_stream(stream).await;
        assert_eq!(durable, part(from, to), "{name}");
        // Typing events may be conflated: start and stop may arrive as one.
        seen.dedup();
        let mut expected = expected;
        expected.dedup();
        assert_eq!(seen, expected, "{name}");
    }
    assert_eq!(database.head("ride_1").await, 16);
}

/// Returns an event without the fields that a later deletion removes from the log.
fn comparable_data(kind: &str, data: &Value) -> String {
    let is_message = matches!(kind, "message:new" | "message:edited");
    format!("{kind} {}", if is_message { &data["id"] } else { data })
}

/// Returns the topic of an event of a merged stream.
fn topic_of(user: &str, kind: &str, data: &Value) -> String {
    match kind {
        "ride:assigned" | "ride:closed" | "notice" => format!("user/{user}"),
        _ => {
            let ride = data["rideId"].as_str().or(data["ride"]["rideId"].as_str());
            format!("ride/{}", ride.unwrap_or_else(|| panic!("{kind} of no ride: {data}")))
        }
    }
}

/// Reads all events of a user, disconnecting and resuming repeatedly, until `is_over` and no more events arrive.
async fn watch(users: [User; 2], by_poll: bool, is_finished: Arc<AtomicBool>) -> (Vec<(String, String)>, usize) {
    let name = users[0].name.clone();
    let (mut seen, mut cursor, mut drops, mut empty_reads) = (Vec::new(), "0".to_owned(), 0, 0);
    while empty_reads < 3 || drops < 100 {
        let user = &users[drops % 2];
        let finished = is_finished.load(Ordering::SeqCst);
        let before = seen.len();
        let mut record =
            |kind: &str, data: &Value| seen.push((topic_of(&name, kind, data), comparable_data(kind, data)));
        if by_poll {
            let answer = user.poll_all(&format!("after={cursor}&wait=0")).await;
            let events = answer["events"].as_array().unwrap();
            // The response, or its last events, may be lost.
            let kept = fastrand::usize(0..=events.len());
            let kept = if finished { events.len() } else { kept };
            for event in &events[..kept] {
                record(event["type"].as_str().unwrap(), &event["data"]);
                cursor = event["id"].as_str().unwrap().to_owned();
            }
        } else {
            let mut stream = user.stream_all("", Some(&cursor)).await.expect(200);
            let sync = stream.next_sync().await;
            assert_eq!((&sync["resumed"], &sync["gap"]), (&json!(true), &Value::Null), "{sync}");
            // After the end, only polls can show that no event remains. Before it, the stream may be cut anywhere.
            let answer = user.poll_all(&format!("after={cursor}&wait=0&types=message:new,ride:*")).await;
            let there = answer["events"].as_array().unwrap().len();
            let wanted = if finished { there } else { fastrand::usize(0..=there.min(3)) };
            let mut got = 0;
            while got < wanted {
                let event: Event = stream.next_event().await;
                if let Some(id) = event.id {
                    got += usize::from(event.kind == "message:new" || event.kind.starts_with("ride:"));
                    record(&event.kind, &event.data);
                    cursor = id;
                }
            }
        }
        drops += 1;
        empty_reads = if finished && seen.len() == before { empty_reads + 1 } else { 0 };
    }
    (seen, drops)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn merged_streams_and_polls_cut_a_hundred_times_see_the_same_events() {
    let database = Database::create().await;
    let users = Users::create(&database).await;
    let is_finished = Arc::new(AtomicBool::new(false));
    let mut watchers = Vec::new();
    for user in [&users.rider, &users.first, &users.second] {
        for by_poll in [false, true] {
            let users = [user.on(&users.one), user.on(&users.two)];
            watchers.push((user.name.clone(), by_poll, tokio::spawn(watch(users, by_poll, Arc::clone(&is_finished)))));
        }
    }
    let rides = ["ride_1", "ride_2", "ride_3"];
    for ride in rides {
        users.request(ride).await;
        users.accept(ride).await;
        users.run_first_part(ride).await;
        users.replace(ride).await;
        users.run_second_part(ride).await;
    }
    let client = database.client().await;
    eventually("all users have their ride:closed events", async || {
        let closed_events = "select count(*) from events where type = 'ride:closed' and data like '%ride_over%'";
        (client.query_one(closed_events, &[]).await.unwrap().get::<_, i64>(0) == 6).then_some(())
    })
    .await;
    is_finished.store(true, Ordering::SeqCst);
    for (name, by_poll, watcher) in watchers {
        let (seen, drops) = watcher.await.unwrap();
        assert!(drops >= 100);
        let mut topics = vec![format!("user/{name}")];
        topics.extend(rides.map(|ride| format!("ride/{ride}")));
        for topic in topics {
            let part =
                "select type, data from events left join participants on topic = 'ride/' || ride_id and user_id = $2
                        where topic = $1 and seq >= coalesce(from_seq, 1) and (until_seq is null or seq <= until_seq)
                        order by seq";
            let rows = client.query(part, &[&topic, &name]).await.unwrap();
            let log = rows.iter().map(|row| {
                comparable_data(row.get("type"), &serde_json::from_str(row.get::<_, &str>("data")).unwrap())
            });
            // Reading acknowledges delivery, so the last delivery events may follow the last poll.
            let log: Vec<_> = log.filter(|event| !event.starts_with("message:delivered")).collect();
            let of_topic = seen.iter().filter(|(of, _)| *of == topic).map(|(_, event)| event.clone());
            let of_topic: Vec<_> = of_topic.filter(|event| !event.starts_with("message:delivered")).collect();
            assert!(!log.is_empty());
            assert_eq!(of_topic, log, "{topic} as {name} saw it, by_poll: {by_poll}");
        }
        let foreign = seen.iter().find(|(topic, _)| !topic.ends_with(&name) && !topic.starts_with("ride/ride_"));
        assert_eq!(foreign, None);
    }
}
