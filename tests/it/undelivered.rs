//! `message:undelivered` on the feed: reports messages that a participant has not received in time.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::Method;
use ridewire::domain::Time;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::{Database, Server, Stream, User, eventually, lock_topic};

const SETTINGS: [(&str, &str); 1] = [("RIDEWIRE_PUSH_AFTER", "1s")];

/// Opens a stream of the feed's `message:undelivered` events.
async fn pushes(service: &User) -> Stream {
    let mut stream = Stream::open(service.request(Method::GET, "feed?types=message:undelivered")).await.expect(200);
    stream.next_sync().await;
    stream
}

/// Returns the recipient and the message of the next event.
async fn next(pushes: &mut Stream) -> (Value, Value) {
    let event = pushes.next_event().await;
    (event.data["data"]["userId"].clone(), event.data["data"]["messageId"].clone())
}

/// Creates an event that is due after all earlier messages.
async fn marker(server: &Server, ride: &str) -> (Value, Value) {
    let (rider, _) = server.open_ride(ride).await;
    let message = rider.send(ride, "a marker").await;
    (json!("driver_1"), message["id"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_not_delivered_in_time_is_reported_once_until_the_watermark_moves() {
    let database = Database::create().await;
    let server = Server::start_with(&database, &SETTINGS).await;
    let service = server.service();
    let (rider, driver) = server.open_ride("ride_1").await;
    let mut pushes = pushes(&service).await;
    let first = rider.send("ride_1", "Where are you?").await;
    let event = pushes.next_event().await;
    let mut expected = json!({
        "rideId": "ride_1", "userId": "driver_1", "messageId": first["id"], "seq": first["seq"], "unreadCount": 1,
    });
    expected["at"] = event.data["data"]["at"].clone();
    assert_eq!(event.data["data"], expected);
    assert!(event.data["data"]["at"].as_str().is_some_and(|at| at.len() == "2026-01-01T00:00:00.000Z".len()));
    assert_eq!((&event.data["topic"], &event.data["seq"]), (&json!("ride/ride_1"), &first["seq"]));

    // Later messages are not reported.
    let second = rider.send("ride_1", "Hello?").await;
    rider.send("ride_1", "Are you there?").await;
    let expected = marker(&server, "ride_2").await;
    assert_eq!(next(&mut pushes).await, expected);

    // The watermark moved, and a later message is still undelivered.
    driver.mark(&first, "delivered").await.expect(200);
    let event = pushes.next_event().await;
    let data = &event.data["data"];
    assert_eq!((&data["messageId"], &data["unreadCount"]), (&second["id"], &json!(3)), "{data}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delivered_deleted_and_own_messages_are_not_reported() {
    let database = Database::create().await;
    let server = Server::start_with(&database, &SETTINGS).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let mut pushes = pushes(&server.service()).await;
    let read = rider.send("ride_1", "One").await;
    driver.mark(&read, "read").await.expect(200);
    let deleted = rider.send("ride_1", "Two").await;
    rider.delete_message(&deleted).await.expect(204);
    // A polling client acknowledges by its cursor.
    let polled = rider.send("ride_1", "Three").await;
    driver.poll("ride_1", &format!("after={}&wait=0", polled["seq"])).await;
    // A removed participant is not reported.
    server.service().put_ride("ride_3", "rider_1", Some("driver_3")).await.expect(201);
    rider.send("ride_3", "Four").await;
    server.service().put_ride("ride_3", "rider_1", Some("driver_1")).await.expect(200);
    let expected = marker(&server, "ride_2").await;
    assert_eq!(next(&mut pushes).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_replica_reports_undelivered_messages_of_a_killed_one() {
    let database = Database::create().await;
    let killed = Server::start_with(&database, &[("RIDEWIRE_PUSH_AFTER", "3s")]).await;
    let rider = killed.open_ride("ride_1").await.0;
    let message = rider.send("ride_1", "Hello?").await;
    killed.kill().await;
    let server = Server::start_with(&database, &SETTINGS).await;
    let service = server.service();
    let mut pushes =
        Stream::open(service.request(Method::GET, "feed?types=message:undelivered&after=0")).await.expect(200);
    pushes.next_sync().await;
    assert_eq!(next(&mut pushes).await, (json!("driver_1"), message["id"].clone()));
    let other = Server::start_with(&database, &SETTINGS).await;
    let expected = marker(&other, "ride_2").await;
    assert_eq!(next(&mut pushes).await, expected, "only one of two replicas reports it");
}

/// The head of the feed is locked, so the search runs late. On a slow machine, the client is then still fast enough.
///
/// A watermark belongs to the user, whichever device moves it. An open stream that acknowledges nothing does not count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delivery_to_one_device_is_enough_and_an_open_stream_alone_is_not() {
    let database = Database::create().await;
    let server = Server::start_with(&database, &SETTINGS).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let mut pushes = pushes(&server.service()).await;
    // The other device is offline.
    let mut phone = server.live_stream(&driver, "ride_1").await;
    let mut locker = database.client().await;
    let lock = lock_topic(&mut locker, "feed").await;
    let delivered = rider.send("ride_1", "One").await;
    phone.next_of_type("message:new").await;
    driver.mark(&delivered, "delivered").await.expect(200);
    lock.rollback().await.unwrap();
    let expected = marker(&server, "ride_2").await;
    assert_eq!(next(&mut pushes).await, expected, "a message that one device has is not reported");
    // This client displays the message without acknowledging it.
    let shown = rider.send("ride_1", "Two").await;
    phone.find("message:new").await;
    assert_eq!(next(&mut pushes).await, (json!("driver_1"), shown["id"].clone()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_polling_client_is_not_reported_until_it_stops_polling() {
    let database = Database::create().await;
    let server = Server::start_with(&database, &SETTINGS).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let mut pushes = pushes(&server.service()).await;
    let mut locker = database.client().await;
    let lock = lock_topic(&mut locker, "feed").await;
    let mut cursor = database.head("ride_1").await.to_string();
    let mut last = Value::Null;
    for n in 0..5 {
        last = rider.send("ride_1", &n.to_string()).await["id"].clone();
        let page = driver.poll("ride_1", &format!("after={cursor}&wait=20&types=message:new")).await;
        assert_eq!(page["events"].as_array().unwrap().last().unwrap()["data"]["id"], last, "{page}");
        cursor = page["cursor"].as_str().unwrap().to_owned();
    }
    // The next poll acknowledges the last message.
    driver.poll("ride_1", &format!("after={cursor}&wait=0")).await;
    let head = "select delivered_seq from receipts where user_id = 'driver_1' and ride_id = 'ride_1'";
    let client = database.client().await;
    eventually("the last one is delivered", async || {
        let rows = client.query(head, &[]).await.unwrap();
        let id = "select id::text from messages where ride_id = 'ride_1' and seq = $1";
        let delivered = client.query(id, &[&rows.first()?.get::<_, i64>(0)]).await.unwrap();
        (delivered.first()?.get::<_, String>(0) == last).then_some(())
    })
    .await;
    lock.rollback().await.unwrap();
    let missed = rider.send("ride_1", "Are you still there?").await;
    assert_eq!(
        next(&mut pushes).await,
        (json!("driver_1"), missed["id"].clone()),
        "no earlier message is reported: {last}"
    );
}

/// Deliveries arrive at about the deadline. A message acknowledged before that is not reported, and one without any
/// acknowledgement is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_just_before_the_deadline_counts_and_a_missing_one_is_reported() {
    const DUE: Duration = Duration::from_secs(1);
    let database = Database::create().await;
    let (server, other) =
        (Server::start_with(&database, &SETTINGS).await, Server::start_with(&database, &SETTINGS).await);
    let mut pushes = pushes(&server.service()).await;
    let rides: Vec<_> = (0..60).map(|n| format!("ride_{n}")).collect();
    let sent = rides.iter().enumerate().map(async |(n, ride)| {
        let (rider, driver) = server.open_ride(ride).await;
        let message = rider.send(ride, "Hello").await;
        let due = Time::parse(message["createdAt"].as_str().unwrap()).unwrap().plus(DUE);
        let id = message["id"].as_str().unwrap().to_owned();
        if n % 3 == 0 {
            return (id, None);
        }
        sleep(due.since(Time::now()).saturating_sub(Duration::from_millis(fastrand::u64(0..60)))).await;
        driver.on(&other).mark(&message, "delivered").await.expect(200);
        (id, Some(Time::now() < due))
    });
    let sent = futures_util::future::join_all(sent).await;
    let expected = marker(&server, "ride_last").await;
    let mut reported = BTreeSet::new();
    loop {
        let pushed = next(&mut pushes).await;
        if pushed == expected {
            break;
        }
        assert!(reported.insert(pushed.1.as_str().unwrap().to_owned()), "twice: {pushed:?}");
    }
    for (id, delivered) in &sent {
        match delivered {
            // The acknowledgement was committed before the deadline.
            Some(true) => assert!(!reported.contains(id), "{id} was delivered in time"),
            None => assert!(reported.contains(id), "{id} was not delivered"),
            // The acknowledgement was committed before or after the search.
            Some(false) => {}
        }
    }
}

/// The replica that has stored a message is killed before the message has a position in the feed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_whose_relay_is_killed_before_it_relays_is_reported_once() {
    let database = Database::create().await;
    let killed = Server::start_with(&database, &SETTINGS).await;
    let (rider, _) = killed.open_ride("ride_1").await;
    let client = database.client().await;
    let waiting = async || client.query_one("select count(*) from feed_batches", &[]).await.unwrap().get::<_, i64>(0);
    eventually("the ride's events are relayed", async || (waiting().await == 0).then_some(())).await;
    let mut locker = database.client().await;
    let lock = lock_topic(&mut locker, "feed").await;
    let message = rider.send("ride_1", "Hello?").await;
    killed.kill().await;
    assert_eq!(waiting().await, 1, "the message has no position yet");
    lock.rollback().await.unwrap();
    let servers = [Server::start_with(&database, &SETTINGS).await, Server::start_with(&database, &SETTINGS).await];
    let mut pushes = {
        let service = servers[0].service();
        let all = service.request(Method::GET, "feed?types=message:undelivered&after=0");
        let mut stream = Stream::open(all).await.expect(200);
        stream.next_sync().await;
        stream
    };
    assert_eq!(next(&mut pushes).await, (json!("driver_1"), message["id"].clone()));
    let expected = marker(&servers[1], "ride_2").await;
    assert_eq!(next(&mut pushes).await, expected, "once");
}

/// Clocks differ: the time of a batch may be later than that of the next batch, and the time of a message later than that of its batch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_is_skipped_whose_time_is_later_than_that_of_the_next() {
    let database = Database::create().await;
    let server = Server::start_with(&database, &SETTINGS).await;
    let mut pushes = pushes(&server.service()).await;
    let (client, mut locker) = (database.client().await, database.client().await);
    // Nothing is processed until all times are set.
    let lock = locker.transaction().await.unwrap();
    lock.query("select from feed_cursors where name = 'undelivered' for update", &[]).await.unwrap();
    let mut expected = Vec::new();
    for ride in ["ride_1", "ride_2", "ride_3"] {
        expected.push(marker(&server, ride).await);
    }
    eventually("all messages are on the feed", async || {
        let query = "select count(*) from feed_entries(0, 1000) join messages on topic = 'ride/' || ride_id and messages.seq = feed_entries.seq";
        (client.query_one(query, &[]).await.unwrap().get::<_, i64>(0) == 3).then_some(())
    })
    .await;
    for change in [
        "update feed_ranges set created_at = now() + interval '2 s' where 'ride/ride_1' = any (topics) and last_seqs[1] = (select max(seq) from messages where ride_id = 'ride_1')",
        "update messages set created_at = now() + interval '1 hour' where ride_id = 'ride_2'",
    ] {
        assert_eq!(client.execute(change, &[]).await.unwrap(), 1, "{change}");
    }
    lock.rollback().await.unwrap();
    let mut reported = Vec::new();
    for _ in &expected {
        reported.push(next(&mut pushes).await);
    }
    assert_eq!(reported, expected);
}
