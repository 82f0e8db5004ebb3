//! Concurrent operations on two replicas, and unfavorable timing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::fixtures::{START, ride_log};
use crate::support::{Database, Response, Server, Stream, TIMEOUT, User, eventually};

/// Only durable events: presence would disturb the sequence.
const LOGGED: &str = "types=message:*,ride:participants,ride:status";

/// The number of rounds. One round may not hit the race.
const ROUNDS: usize = 30;

async fn two(database: &Database, settings: &[(&str, &str)]) -> [Server; 2] {
    [Server::start_with(database, settings).await, Server::start_with(database, settings).await]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_message_sent_on_two_replicas_at_once_is_stored_once() {
    let database = Database::create().await;
    let servers = two(&database, &[]).await;
    let (rider, driver) = servers[0].open_ride("ride").await;
    let mut stream = driver.on(&servers[1]).stream("ride", LOGGED).await;
    stream.next_sync().await;
    for round in 0..ROUNDS {
        let name = format!("round {round}");
        let mut sends = JoinSet::new();
        for number in 0..6 {
            let (rider, name) = (rider.on(&servers[number % 2]), name.clone());
            sends.spawn(async move { rider.send_with_id("ride", "the same", &name).await });
        }
        let responses = sends.join_all().await;
        let mut statuses: Vec<_> = responses.iter().map(|response| response.status.as_u16()).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 200, 200, 200, 200, 201], "{name}");
        let messages: BTreeSet<_> = responses
            .iter()
            .map(|response| {
                let message = response.json();
                (message["id"].as_str().unwrap().to_owned(), message["seq"].as_i64().unwrap())
            })
            .collect();
        assert_eq!(messages.len(), 1, "{name}: {messages:?}");
        let event = stream.next_of_type("message:new").await;
        assert_eq!((event.data["id"].as_str().unwrap().to_owned(), event.seq()), *messages.first().unwrap());
    }
    let log = ride_log(&database, "ride").await;
    assert_eq!(log.count("message:new"), ROUNDS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_concurrent_with_the_end_of_the_ride_agree_with_the_log() {
    let database = Database::create().await;
    let servers = two(&database, &[("RIDEWIRE_CHAT_GRACE", "0s")]).await;
    let service = servers[1].service();
    let (mut created, mut closed) = (0, 0);
    for round in 0..ROUNDS {
        let ride = format!("ride_{round}");
        let body = json!({"riderId": "rider_1", "driverId": "driver_1", "status": "in_progress"});
        service.put(&format!("rides/{ride}"), body).await.expect(201);
        let first_is_there = Arc::new(AtomicBool::new(false));
        let mut sends = JoinSet::new();
        for number in 0..8 {
            let rider = servers[number % 2].rider("rider_1");
            let (ride, first_is_there) = (ride.clone(), Arc::clone(&first_is_there));
            sends.spawn(async move {
                let mut responses = Vec::new();
                loop {
                    let name = format!("{number} {}", responses.len());
                    let response = rider.send_with_id(&ride, &name, &name).await;
                    first_is_there.store(true, Ordering::SeqCst);
                    let is_closed = response.status == 409;
                    responses.push((name, response));
                    if is_closed {
                        return responses;
                    }
                }
            });
        }
        eventually("a message is stored", async || first_is_there.load(Ordering::SeqCst).then_some(())).await;
        service.set_status(&ride, "completed").await.expect(200);
        let log = {
            let responses: BTreeMap<_, _> = sends.join_all().await.into_iter().flatten().collect();
            let log = ride_log(&database, &ride).await;
            assert_eq!(log.kinds().last(), Some(&"ride:status"), "no event follows the end: {:?}", log.kinds());
            for (name, response) in &responses {
                let is_there = log.messages().any(|message| message["clientMessageId"] == **name);
                match response.status.as_u16() {
                    201 => created += 1,
                    409 => closed += 1,
                    _ => panic!("{} {}", response.status, response.text()),
                }
                assert_eq!(is_there, response.status == 201, "{name}: {} {}", response.status, response.text());
            }
            assert_eq!(log.count("message:new"), responses.values().filter(|response| response.status == 201).count());
            log
        };
        // A retry of an acknowledged message returns 200, although the chat is closed now.
        let message = log.messages().next().unwrap();
        let name = message["clientMessageId"].as_str().unwrap();
        let again = servers[0].rider("rider_1").send_with_id(&ride, name, name).await.expect(200).json();
        assert_eq!(again["id"], message["id"]);
    }
    assert!(created >= ROUNDS && closed == 8 * ROUNDS, "{created} created, {closed} rejected");
}

/// Appends a message to a ride's log as another replica would, for example one of a later version.
async fn commit_elsewhere(client: &tokio_postgres::Client, ride: &str, data: &str) -> i64 {
    let topic = format!("ride/{ride}");
    client.batch_execute("begin").await.unwrap();
    client.query("select from topics where name = $1 for update", &[&topic]).await.unwrap();
    let raise = "update topics set last_seq = last_seq + 1 where name = $1 returning last_seq";
    let seq: i64 = client.query_one(raise, &[&topic]).await.unwrap().get(0);
    let append =
        "insert into events (topic, seq, type, data, created_at) values ($1, $2, 'message:new', $3, clock_timestamp())";
    client.execute(append, &[&topic, &seq, &data]).await.unwrap();
    client.batch_execute("commit").await.unwrap();
    seq
}

async fn notify(client: &tokio_postgres::Client, ride: &str, seq: i64) {
    let payload = json!({"v": 1, "heads": {format!("ride/{ride}"): seq}}).to_string();
    client.query("select pg_notify('ridewire', $1)", &[&payload]).await.unwrap();
}

async fn is_listening(server: &Server) {
    eventually("the listener is connected", async || {
        let ready = reqwest::get(format!("{}/readyz", server.base)).await.ok()?.text().await.ok()?;
        ready.contains(r#""listen":"listening""#).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_commit_of_another_replica_is_delivered_by_its_notification() {
    let database = Database::create().await;
    // Only the notification can deliver the event in time.
    let server = Server::start_with(&database, &[("RIDEWIRE_FALLBACK_POLL", "1h")]).await;
    let (_, driver) = server.open_ride("ride").await;
    let mut stream = server.live_stream(&driver, "ride").await;
    is_listening(&server).await;
    let client = database.client().await;
    for round in 0..10 {
        let data = format!(r#"{{"round":{round}}}"#);
        let seq = commit_elsewhere(&client, "ride", &data).await;
        notify(&client, "ride", seq).await;
        let event = stream.next_of_type("message:new").await;
        assert_eq!((event.seq(), event.text), (seq, data));
    }
}

#[tokio::test]
async fn a_commit_of_another_replica_without_a_notification_is_found_by_the_fallback_poll() {
    let database = Database::create().await;
    let server = Server::start_with(&database, &[("RIDEWIRE_FALLBACK_POLL", "200ms")]).await;
    let (rider, driver) = server.open_ride("ride").await;
    let mut stream = server.live_stream(&driver, "ride").await;
    let client = database.client().await;
    for round in 0..5 {
        let data = format!(r#"{{"round":{round}}}"#);
        let seq = commit_elsewhere(&client, "ride", &data).await;
        let event = stream.next_of_type("message:new").await;
        assert_eq!((event.seq(), event.text), (seq, data));
    }
    // The next commit on this replica is further ahead than the known head, so the log is loaded as well.
    let seq = commit_elsewhere(&client, "ride", "{}").await;
    let message = rider.send("ride", "after one from elsewhere").await;
    assert_eq!(message["seq"], seq + 1);
    assert_eq!(stream.next_of_type("message:new").await.seq(), seq);
    assert_eq!(stream.next_of_type("message:new").await.seq(), seq + 1);
}

#[tokio::test]
async fn a_notification_ahead_of_the_log_costs_one_query_and_nothing_else() {
    let database = Database::create().await;
    let server = Server::start_with(&database, &[("RIDEWIRE_FALLBACK_POLL", "200ms")]).await;
    let (rider, driver) = server.open_ride("ride").await;
    let mut stream = server.live_stream(&driver, "ride").await;
    is_listening(&server).await;
    let client = database.client().await;
    for ahead in [1, 2, 1_000] {
        let head = database.head("ride").await;
        notify(&client, "ride", head + ahead).await;
        // This notification arrives later on the same connection.
        let seq = commit_elsewhere(&client, "ride", "{}").await;
        notify(&client, "ride", seq).await;
        assert_eq!(stream.next_of_type("message:new").await.seq(), seq, "after a notification {ahead} ahead");
        let message = rider.send("ride", "go on").await;
        assert_eq!(stream.next_of_type("message:new").await.seq(), message["seq"]);
    }
    // Long enough for several polls of the log, which must not conclude that the log was reset.
    notify(&client, "ride", database.head("ride").await + 1).await;
    for _ in 0..5 {
        let since = Instant::now();
        let message = rider.send("ride", "go on").await;
        assert_eq!(stream.next_of_type("message:new").await.seq(), message["seq"]);
        eventually("a fallback poll", async || (since.elapsed() > Duration::from_millis(300)).then_some(())).await;
    }
}

/// Connects with the last id, receives a few events, disconnects, and repeats this until `done`.
async fn connect_and_disconnect(
    user: User,
    ride: String,
    done: Arc<AtomicBool>,
    head: Arc<AtomicI64>,
) -> (String, Vec<i64>, usize) {
    let (mut seen, mut connections) = (Vec::new(), 0);
    let mut last = head.load(Ordering::SeqCst).to_string();
    loop {
        let is_done =
            done.load(Ordering::SeqCst) && seen.last().is_some_and(|last| *last >= head.load(Ordering::SeqCst));
        if is_done {
            return (ride, seen, connections);
        }
        connections += 1;
        let mut stream = user.stream_from(&ride, "", Some(&last)).await;
        let sync = stream.next_sync().await;
        assert_eq!((&sync["resumed"], &sync["cursor"]), (&json!(true), &json!(last)));
        // Disconnects at once, after the first event, or after a moment.
        let stay = Duration::from_millis(fastrand::u64(0..30));
        while let Ok(Some(event)) = timeout(stay, stream.try_next()).await {
            // Only durable events have an id.
            if event.id.is_none() {
                continue;
            }
            seen.push(event.seq());
            last = event.seq().to_string();
            if fastrand::bool() {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_dropped_and_loaded_again_misses_and_repeats_nothing() {
    const MESSAGES: usize = 300;
    let database = Database::create().await;
    let servers = two(&database, &[("RIDEWIRE_FALLBACK_POLL", "500ms")]).await;
    let rides = ["one", "two", "three"];
    let mut work = JoinSet::new();
    let mut sending = JoinSet::new();
    for ride in rides {
        let (rider, driver) = servers[0].open_ride(ride).await;
        assert_eq!(database.head(ride).await, START);
        let (done, head) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(START)));
        // One reader on each replica. While it is disconnected, the replica drops the topic.
        for server in &servers {
            work.spawn(connect_and_disconnect(
                driver.on(server),
                ride.to_owned(),
                Arc::clone(&done),
                Arc::clone(&head),
            ));
        }
        let riders = [rider.on(&servers[0]), rider.on(&servers[1])];
        sending.spawn(async move {
            for number in 0..MESSAGES / rides.len() {
                let message = riders[fastrand::usize(..2)].send(ride, &number.to_string()).await;
                head.store(message["seq"].as_i64().unwrap(), Ordering::SeqCst);
            }
            done.store(true, Ordering::SeqCst);
        });
    }
    sending.join_all().await;
    let mut total_connections = 0;
    let readers = timeout(TIMEOUT * 2, work.join_all()).await.expect("every reader reaches the head");
    for (ride, seen, connections) in readers {
        // A reconnect acknowledges delivery up to its id, which appends an event. So the log may be longer than the events seen.
        let log = ride_log(&database, &ride).await;
        assert_eq!(log.count("message:new"), MESSAGES / rides.len());
        let everything: Vec<_> = (START + 1..=log.head()).collect();
        assert!(seen.len() >= MESSAGES / rides.len() && everything.starts_with(&seen), "of {ride}: {seen:?}");
        total_connections += connections;
    }
    assert!(total_connections > 100, "too few connections: {total_connections}");
    eprintln!("{total_connections} connections");
}

/// Reads a stream of a user who is removed from the ride: `(seq, type)` of all events.
async fn until_removed(mut stream: Stream) -> Vec<(i64, String)> {
    let mut events = stream.until_end().await;
    let closing = events.pop().expect("a closing event");
    assert_eq!((closing.kind.as_str(), &closing.data), ("stream:closing", &json!({"reason": "removed"})));
    events.iter().filter(|event| event.kind != "stream:sync").map(|event| (event.seq(), event.kind.clone())).collect()
}

/// The same by long polls.
async fn poll_until_removed(user: User, ride: String, after: i64) -> Vec<(i64, String)> {
    let (mut events, mut cursor) = (Vec::new(), after.to_string());
    loop {
        let response: Response = user.get(&format!("messages/rides/{ride}/poll?after={cursor}&wait=5")).await;
        if response.status == 404 {
            return events;
        }
        let page = response.expect(200).json();
        for event in page["events"].as_array().unwrap() {
            events.push((event["id"].as_str().unwrap().parse().unwrap(), event["type"].as_str().unwrap().to_owned()));
        }
        if page["closed"] == true {
            return events;
        }
        cursor = page["cursor"].as_str().unwrap().to_owned();
    }
}

/// Returns the first event of a user who is about to be added. The user retries until then.
async fn first_of(user: User, ride: String) -> (i64, String) {
    let deadline = Instant::now() + TIMEOUT;
    while Instant::now() < deadline {
        let mut stream = user.stream_from(&ride, &format!("after=0&{LOGGED}"), None).await;
        if stream.status != 404 {
            stream.next_sync().await;
            let event = stream.next_event().await;
            return (event.seq(), event.kind);
        }
    }
    panic!("the new driver gets no access");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_driver_sees_nothing_after_the_replacement_and_the_new_driver_nothing_before_it() {
    let database = Database::create().await;
    let servers = two(&database, &[("RIDEWIRE_FALLBACK_POLL", "500ms")]).await;
    for round in 0..12 {
        let ride = format!("ride_{round}");
        let (rider, old) = servers[0].open_ride(&ride).await;
        let new = servers[0].driver("driver_2");
        let mut old_ones = JoinSet::new();
        let mut new_ones = JoinSet::new();
        for server in &servers {
            let mut stream = old.on(server).stream(&ride, LOGGED).await;
            stream.next_sync().await;
            old_ones.spawn(until_removed(stream));
            old_ones.spawn(poll_until_removed(old.on(server), ride.clone(), START));
            new_ones.spawn(first_of(new.on(server), ride.clone()));
        }
        // Messages are sent before, during and after the replacement.
        let stop = Arc::new(AtomicBool::new(false));
        let mut senders = JoinSet::new();
        for server in &servers {
            let (rider, ride, stop) = (rider.on(server), ride.clone(), Arc::clone(&stop));
            senders.spawn(async move {
                let mut sent = 0;
                while !stop.load(Ordering::SeqCst) {
                    rider.send(&ride, &format!("message {sent}")).await;
                    sent += 1;
                }
                sent
            });
        }
        eventually("messages are sent", async || (database.head(&ride).await > 8).then_some(())).await;
        let replace = json!({"riderId": "rider_1", "driverId": "driver_2"});
        servers[round % 2].service().put(&format!("rides/{ride}"), replace).await.expect(200);
        let at = database.head(&ride).await;
        eventually("messages continue", async || (database.head(&ride).await > at + 5).then_some(())).await;
        let seen_by_old = timeout(TIMEOUT, old_ones.join_all()).await.expect("the old driver's streams end");
        let seen_by_new = new_ones.join_all().await;
        stop.store(true, Ordering::SeqCst);
        let sent: usize = senders.join_all().await.into_iter().sum();

        let log = ride_log(&database, &ride).await;
        let replaced = log.seqs_of("ride:participants").last().copied().unwrap();
        let until: Vec<(i64, String)> = log.between(START + 1, replaced);
        assert!(
            sent > 10 && replaced > 5 && log.head() > replaced + 2,
            "too few messages: {replaced} of {}",
            log.head()
        );
        for seen in seen_by_old {
            assert_eq!(seen, until, "the old driver's last event is the replacement");
        }
        for seen in seen_by_new {
            assert_eq!(
                seen,
                (replaced, "ride:participants".to_owned()),
                "the new driver's first event is the replacement"
            );
        }
    }
}
