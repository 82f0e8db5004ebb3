//! Locations, presence and availability are sent only to the replicas that follow their topic.
//!
//! The fallback poll of the replicas is off, so a value that arrives has been sent or was found by a comparison with the database.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::poll_fn;
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Client, NoTls};

use crate::support::{Database, Server, TIMEOUT, User, eventually, eventually_within, until_waiting_for_locks};

/// Searches for topics without readers and heartbeats are five seconds apart, and a busy machine is slow.
const PERIODS: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

/// Starts a server, and waits until it has its lease.
async fn start(database: &Database) -> Server {
    let client = database.client().await;
    let leases = async || -> i64 {
        // The table does not exist before the first server has started.
        let counted = client.query_one("select count(*) from replicas where channel is not null", &[]).await;
        counted.map_or(0, |row| row.get(0))
    };
    let before = leases().await;
    let server = Server::start_with(database, &[("RIDEWIRE_FALLBACK_POLL", "1h")]).await;
    eventually("the server has its lease", async || (leases().await > before).then_some(())).await;
    server
}

async fn post_location(driver: &User, ride: &str, lat: i32) {
    driver.post(&format!("rides/{ride}/location"), json!({ "lat": lat, "lng": 1 })).await.expect(202);
}

/// Returns the channel suffixes of the replicas that follow a ride.
async fn followers(client: &Client, ride: &str) -> Vec<String> {
    let query =
        "select replicas.channel from followers join replicas using (replica) where topic = 'ride/' || $1::text";
    client.query(query, &[&ride]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn until_followers(client: &Client, ride: &str, count: usize) {
    eventually_within(PERIODS, PAUSE, &format!("{count} replicas follow {ride}"), async || {
        (followers(client, ride).await.len() == count).then_some(())
    })
    .await;
}

/// Listens to all channels of the deployment. Returns the channel and payload of each notification.
async fn listen_to_all(database: &Database) -> (Client, UnboundedReceiver<(String, String)>) {
    let (client, mut connection) = tokio_postgres::connect(&database.url, NoTls).await.unwrap();
    let (sender, receiver) = unbounded_channel();
    tokio::spawn(async move {
        let mut messages = poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notification(notification) = message {
                let _ = sender.send((notification.channel().to_owned(), notification.payload().to_owned()));
            }
        }
    });
    client.batch_execute("listen ridewire").await.unwrap();
    for row in client.query("select channel from replicas where channel is not null", &[]).await.unwrap() {
        client.batch_execute(&format!("listen ridewire_{}", row.get::<_, &str>(0))).await.unwrap();
    }
    (client, receiver)
}

async fn next(received: &mut UnboundedReceiver<(String, String)>) -> (String, String) {
    timeout(TIMEOUT, received.recv()).await.expect("a notification").unwrap()
}

/// Returns the channels of the next notifications with locations, up to the one that contains `data`.
async fn channels_of_locations(received: &mut UnboundedReceiver<(String, String)>, data: &str) -> Vec<String> {
    let mut channels = Vec::new();
    loop {
        let (channel, payload) = next(received).await;
        if payload.contains("ride:location") {
            channels.push(channel);
        }
        if payload.contains(data) {
            return channels;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_location_goes_only_to_the_replicas_that_follow_its_ride() {
    let database = Database::create().await;
    let (one, two, three) = (start(&database).await, start(&database).await, start(&database).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    one.open_ride("ride_2").await;
    let mut of_two = two.live_stream(&rider, "ride_1").await;
    let mut of_three = three.live_stream(&rider, "ride_2").await;
    let client = database.client().await;
    let (followers_1, followers_2) = (followers(&client, "ride_1").await, followers(&client, "ride_2").await);
    assert_eq!((followers_1.len(), followers_2.len()), (1, 1));
    assert_ne!(followers_1, followers_2);

    let (_listening, mut received) = listen_to_all(&database).await;
    for lat in 1..=10 {
        post_location(&driver, "ride_1", lat).await;
        assert_eq!(of_two.next_of_type("ride:location").await.data["lat"], json!(f64::from(lat)));
    }
    post_location(&driver, "ride_2", 80).await;
    assert_eq!(of_three.next_of_type("ride:location").await.data["lat"], json!(80.0));
    let mut channels = channels_of_locations(&mut received, "80.0").await;
    assert_eq!(channels.pop(), Some(format!("ridewire_{}", followers_2[0])));
    assert!(!channels.is_empty());
    assert!(channels.iter().all(|channel| *channel == format!("ridewire_{}", followers_1[0])), "{channels:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_misses_no_value_that_is_sent_while_it_opens() {
    let database = Database::create().await;
    let (one, two) = (start(&database).await, start(&database).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let (mut holder, observer) = (database.client().await, database.client().await);
    // The reader's registration waits for this lock. Meanwhile the location is committed, and sent to the followers: none.
    let held = holder.transaction().await.unwrap();
    held.batch_execute("lock table followers in share mode").await.unwrap();
    let opening = {
        let reader = rider.on(&two);
        tokio::spawn(async move { reader.stream("ride_1", "").await.next_sync().await })
    };
    until_waiting_for_locks(&observer, 1).await;
    post_location(&driver, "ride_1", 7).await;
    held.rollback().await.unwrap();
    let sync = opening.await.unwrap();
    assert_eq!(sync["state"]["location"]["lat"], json!(7.0), "{sync}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lost_its_lease_finds_what_was_not_sent_and_is_followed_again() {
    let database = Database::create().await;
    let (one, two) = (start(&database).await, start(&database).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let mut stream = two.live_stream(&rider, "ride_1").await;
    let client = database.client().await;
    // As after a crash of the database, which empties both tables.
    client.batch_execute("truncate replicas, followers").await.unwrap();
    post_location(&driver, "ride_1", 1).await;
    assert_eq!(stream.next_of_type("ride:location").await.data["lat"], json!(1.0), "found under the new lease");
    until_followers(&client, "ride_1", 1).await;
    post_location(&driver, "ride_1", 2).await;
    assert_eq!(stream.next_of_type("ride:location").await.data["lat"], json!(2.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ride_is_unfollowed_after_its_last_reader_and_followed_again_by_the_next() {
    let database = Database::create().await;
    let (one, two) = (start(&database).await, start(&database).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let client = database.client().await;
    let polled = rider.on(&two).poll("ride_1", "").await;
    assert_eq!(followers(&client, "ride_1").await.len(), 1, "the next poll often comes to the same replica");
    until_followers(&client, "ride_1", 0).await;
    let stream = two.live_stream(&rider, "ride_1").await;
    until_followers(&client, "ride_1", 1).await;
    drop(stream);
    // A replica that was killed unregisters nothing. Its topics expire with its lease.
    two.kill().await;
    let mut of_one = one.live_stream(&driver, "ride_1").await;
    until_followers(&client, "ride_1", 2).await;
    client.execute("update replicas set expires_at = now() where channel <> ''", &[]).await.unwrap();
    until_followers(&client, "ride_1", 1).await;
    eventually_within(PERIODS, PAUSE, "the topics of the killed replica are removed", async || {
        let rows: i64 = client.query_one("select count(*) from followers", &[]).await.unwrap().get(0);
        (rows == 1).then_some(())
    })
    .await;
    rider.send("ride_1", "hello").await;
    of_one.find("message:new").await;
    assert!(polled["cursor"].is_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_replica_of_an_earlier_version_runs_values_go_to_all_replicas() {
    let database = Database::create().await;
    let (one, two) = (start(&database).await, start(&database).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let mut stream = two.live_stream(&rider, "ride_1").await;
    let (client, (_listening, mut received)) = (database.client().await, listen_to_all(&database).await);
    let earlier = "insert into replicas (replica, expires_at) values (gen_random_uuid(), now() + interval '1 hour')";
    client.execute(earlier, &[]).await.unwrap();
    post_location(&driver, "ride_1", 1).await;
    assert_eq!(stream.next_of_type("ride:location").await.data["lat"], json!(1.0));
    assert_eq!(channels_of_locations(&mut received, "ride:location").await, ["ridewire"]);
    client.execute("delete from replicas where channel is null", &[]).await.unwrap();
    post_location(&driver, "ride_1", 2).await;
    assert_eq!(stream.next_of_type("ride:location").await.data["lat"], json!(2.0));
    assert_ne!(channels_of_locations(&mut received, "ride:location").await, ["ridewire"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_values_are_split_into_notifications_that_postgres_accepts() {
    let database = Database::create().await;
    let server = start(&database).await;
    server.open_ride("ride_1").await;
    let client = database.client().await;
    let (listening, mut received) = listen_to_all(&database).await;
    let other = "insert into replicas (replica, expires_at, channel)
                 values ('00000000-0000-7000-8000-000000000001', now() + interval '1 hour', 'other')";
    client.execute(other, &[]).await.unwrap();
    let follow = "insert into followers (topic, replica, generation)
                  values ('ride/ride_1', '00000000-0000-7000-8000-000000000001', 0)";
    client.execute(follow, &[]).await.unwrap();
    listening.batch_execute("listen ridewire_other").await.unwrap();
    // All are different, because Postgres sends equal notifications of a transaction once.
    let values: Vec<_> = (0..200).map(|number| json!(format!("{number:0300}")).to_string()).collect();
    let topics = vec!["ride/ride_1"; values.len()];
    let notify = include_str!("../../sql/topics/notify.sql");
    let none: Vec<&str> = Vec::new();
    client.query(notify, &[&none, &topics, &values, &"sender"]).await.unwrap();
    let (mut count, mut parts) = (0, 0);
    while count < 200 {
        let (channel, payload) = next(&mut received).await;
        if channel == "ridewire_other" {
            let payload: serde_json::Value = serde_json::from_str(&payload).unwrap();
            (count, parts) = (count + payload["values"].as_array().unwrap().len(), parts + 1);
        }
    }
    assert_eq!((count, parts), (200, 16));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_opens_although_its_topic_cannot_be_registered_and_receives_values_later() {
    let database = Database::create().await;
    let (one, two) = (start(&database).await, start(&database).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let client = database.client().await;
    client.batch_execute("alter table followers add constraint closed check (false) not valid").await.unwrap();
    let mut stream = two.live_stream(&rider, "ride_1").await;
    assert_eq!(followers(&client, "ride_1").await.len(), 0);
    post_location(&driver, "ride_1", 1).await;
    client.batch_execute("alter table followers drop constraint closed").await.unwrap();
    assert_eq!(stream.next_of_type("ride:location").await.data["lat"], json!(1.0), "found after the registration");
    until_followers(&client, "ride_1", 1).await;
    post_location(&driver, "ride_1", 2).await;
    assert_eq!(stream.next_of_type("ride:location").await.data["lat"], json!(2.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_removal_does_not_remove_a_later_registration() {
    let database = Database::create().await;
    let _server = start(&database).await;
    let client = database.client().await;
    let replica = uuid::Uuid::now_v7();
    let add = include_str!("../../sql/followers/add.sql");
    let remove = include_str!("../../sql/followers/remove.sql");
    let topics = ["ride/ride_1", "ride/ride_2"];
    for (topic, generation) in [(topics[0], 4_i64), (topics[1], 5), (topics[1], 4)] {
        client.execute(add, &[&vec![topic], &vec![replica], &vec![generation]]).await.unwrap();
    }
    assert_eq!(
        client.execute(remove, &[&&topics[..], &uuid::Uuid::now_v7(), &9_i64]).await.unwrap(),
        0,
        "another replica"
    );
    assert_eq!(client.execute(remove, &[&&topics[..], &replica, &4_i64]).await.unwrap(), 1);
    let left = client.query_one("select topic from followers where replica = $1", &[&replica]).await.unwrap();
    assert_eq!(left.get::<_, &str>(0), topics[1]);
}
