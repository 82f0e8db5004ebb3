//! A ride from its request to its end, with everybody on it, held against what each was to see.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::{Database, Event, Server, Stream, User, eventually};

const SETTINGS: [(&str, &str); 1] = [("RIDEWIRE_CHAT_GRACE", "1s")];

/// Everybody, each at one of two replicas.
struct Cast {
    one: Server,
    two: Server,
    rider: User,
    first: User,
    second: User,
    support: User,
    dispatch: User,
}

impl Cast {
    async fn gather(database: &Database) -> Self {
        let (one, two) = (Server::with(database, &SETTINGS).await, Server::with(database, &SETTINGS).await);
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
        self.first.post_nothing(&format!("rides/{ride}/accept")).await.expect(200);
    }

    /// The first driver's part.
    async fn meet(&self, ride: &str) {
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

    /// The second driver's part, to the end.
    async fn drive(&self, ride: &str) {
        let wrong = self.rider.send(ride, "At the wrong gate").await;
        let there = json!({ "lat": 52.5, "lng": 13.4 });
        self.second.post(&format!("rides/{ride}/location"), there).await.expect(202);
        self.second.send(ride, "Which gate?").await;
        self.support.send(ride, "Support is here").await;
        self.rider.erase(&wrong).await.expect(204);
        for status in ["arrived", "in_progress", "completed"] {
            self.second.set_status(ride, status).await.expect(200);
        }
    }
}

/// The log's events and what is told beside it, of a stream that has ended.
async fn durable_and_told(mut stream: Stream) -> (Vec<(i64, String)>, Vec<String>) {
    let events = stream.until_end().await;
    let durable = events.iter().filter(|event| event.id.is_some()).map(|event| (event.seq(), event.kind.clone()));
    let told = events.iter().filter(|event| event.id.is_none()).map(|event| event.kind.clone());
    (durable.collect(), told.collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_on_a_ride_sees_what_is_theirs_and_nothing_else() {
    let database = Database::create().await;
    let cast = Cast::gather(&database).await;
    cast.request("ride_1").await;
    let [rider, support, dispatch] = [
        cast.two.live(&cast.rider, "ride_1").await,
        cast.one.live(&cast.support, "ride_1").await,
        cast.two.live(&cast.dispatch, "ride_1").await,
    ];
    cast.accept("ride_1").await;
    let first = cast.one.live(&cast.first, "ride_1").await;
    cast.meet("ride_1").await;
    cast.replace("ride_1").await;
    let second = cast.two.live(&cast.second, "ride_1").await;
    cast.drive("ride_1").await;

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
    // Typing is no news to who types; a position is told to all who are there then.
    let typing = ["typing:indicator", "typing:indicator"];
    let whole = ["ride:location", "stream:closing"];
    for (name, stream, (from, to), told) in [
        ("rider", rider, (2, 16), [&whole[..], &[]].concat()),
        ("support", support, (2, 16), [&typing[..], &whole].concat()),
        ("dispatch", dispatch, (2, 16), [&typing[..], &whole].concat()),
        ("first driver", first, (4, 9), [&typing[..], &["stream:closing"]].concat()),
        ("second driver", second, (10, 16), whole.to_vec()),
    ] {
        let (durable, mut seen) = durable_and_told(stream).await;
        assert_eq!(durable, part(from, to), "{name}");
        // What is conflated may come once: somebody typed, and has stopped.
        seen.dedup();
        let mut told = told;
        told.dedup();
        assert_eq!(seen, told, "{name}");
    }
    assert_eq!(database.head("ride_1").await, 16);
}

/// What an event is, without what a later deletion takes out of the log.
fn essence(kind: &str, data: &Value) -> String {
    let is_message = matches!(kind, "message:new" | "message:edited");
    format!("{kind} {}", if is_message { &data["id"] } else { data })
}

/// The topic of an event of a merged stream.
fn topic_of(user: &str, kind: &str, data: &Value) -> String {
    match kind {
        "ride:assigned" | "ride:closed" | "notice" => format!("user/{user}"),
        _ => {
            let ride = data["rideId"].as_str().or(data["ride"]["rideId"].as_str());
            format!("ride/{}", ride.unwrap_or_else(|| panic!("{kind} of no ride: {data}")))
        }
    }
}

/// Follows everything of a user's, dropped and resumed again and again, until `is_over` and nothing more comes.
async fn watch(users: [User; 2], by_poll: bool, is_over: Arc<AtomicBool>) -> (Vec<(String, String)>, usize) {
    let name = users[0].name.clone();
    let (mut seen, mut cursor, mut drops, mut silent) = (Vec::new(), "0".to_owned(), 0, 0);
    while silent < 3 || drops < 100 {
        let user = &users[drops % 2];
        let over = is_over.load(Ordering::SeqCst);
        let before = seen.len();
        let mut take = |kind: &str, data: &Value| seen.push((topic_of(&name, kind, data), essence(kind, data)));
        if by_poll {
            let answer = user.poll_all(&format!("after={cursor}&wait=0")).await;
            let events = answer["events"].as_array().unwrap();
            // An answer that is lost on the way, or whose last events are.
            let kept = fastrand::usize(0..=events.len());
            let kept = if over { events.len() } else { kept };
            for event in &events[..kept] {
                take(event["type"].as_str().unwrap(), &event["data"]);
                cursor = event["id"].as_str().unwrap().to_owned();
            }
        } else {
            let mut stream = user.stream_all("", Some(&cursor)).await.expect(200);
            let sync = stream.next_sync().await;
            assert_eq!((&sync["resumed"], &sync["gap"]), (&json!(true), &Value::Null), "{sync}");
            // At the end a poll tells that there is nothing more; before it a cut anywhere will do.
            let answer = user.poll_all(&format!("after={cursor}&wait=0&types=message:new,ride:*")).await;
            let there = answer["events"].as_array().unwrap().len();
            let wanted = if over { there } else { fastrand::usize(0..=there.min(3)) };
            let mut got = 0;
            while got < wanted {
                let event: Event = stream.next_event().await;
                if let Some(id) = event.id {
                    got += usize::from(event.kind == "message:new" || event.kind.starts_with("ride:"));
                    take(&event.kind, &event.data);
                    cursor = id;
                }
            }
        }
        drops += 1;
        silent = if over && seen.len() == before { silent + 1 } else { 0 };
    }
    (seen, drops)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_is_seen_by_merged_streams_and_polls_that_are_cut_a_hundred_times() {
    let database = Database::create().await;
    let cast = Cast::gather(&database).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut watchers = Vec::new();
    for user in [&cast.rider, &cast.first, &cast.second] {
        for by_poll in [false, true] {
            let users = [user.on(&cast.one), user.on(&cast.two)];
            watchers.push((user.name.clone(), by_poll, tokio::spawn(watch(users, by_poll, Arc::clone(&is_over)))));
        }
    }
    let rides = ["ride_1", "ride_2", "ride_3"];
    for ride in rides {
        cast.request(ride).await;
        cast.accept(ride).await;
        cast.meet(ride).await;
        cast.replace(ride).await;
        cast.drive(ride).await;
    }
    let client = database.client().await;
    eventually("all are told that the rides have closed", async || {
        let told = "select count(*) from events where type = 'ride:closed' and data like '%ride_over%'";
        (client.query_one(told, &[]).await.unwrap().get::<_, i64>(0) == 6).then_some(())
    })
    .await;
    is_over.store(true, Ordering::SeqCst);
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
            let log = rows
                .iter()
                .map(|row| essence(row.get("type"), &serde_json::from_str(row.get::<_, &str>("data")).unwrap()));
            // Deliveries are acknowledged by those who read, so the last of them may come after the last look.
            let log: Vec<_> = log.filter(|event| !event.starts_with("message:delivered")).collect();
            let of_topic = seen.iter().filter(|(of, _)| *of == topic).map(|(_, event)| event.clone());
            let of_topic: Vec<_> = of_topic.filter(|event| !event.starts_with("message:delivered")).collect();
            assert!(!log.is_empty());
            assert_eq!(of_topic, log, "{topic} as {name} saw it, by_poll: {by_poll}");
        }
        let strange = seen.iter().find(|(topic, _)| !topic.ends_with(&name) && !topic.starts_with("ride/ride_"));
        assert_eq!(strange, None);
    }
}
