//! Batches of different rides run concurrently. Batches of one ride run one after another.

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::metrics::scrape;
use crate::support::{
    Database, Server, User, block_message_insert, eventually, lock_ride, lock_topic, until_waiting_for_locks,
};

const MANY: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

pub(crate) fn send(rider: &User, ride: &'static str, client_id: &str) -> JoinHandle<Value> {
    let (rider, client_id) = (rider.clone(), client_id.to_owned());
    tokio::spawn(async move { rider.send_with_id(ride, "Hello", &client_id).await.expect(201).json() })
}

/// Sends to the rides "one" and "two", whose batches wait for locks, and then to `others`. The commands for `others` form a
/// large batch while both batches wait.
pub(crate) async fn send_large_batch(
    rider: &User,
    observer: &Client,
    client_id: &str,
    others: impl IntoIterator<Item = &'static str>,
) -> Vec<JoinHandle<Value>> {
    let mut sent = vec![send(rider, "one", client_id)];
    until_waiting_for_locks(observer, 1).await;
    sent.push(send(rider, "two", client_id));
    until_waiting_for_locks(observer, 2).await;
    let others: Vec<_> = others.into_iter().collect();
    sent.extend(others.iter().map(|ride| send(rider, ride, client_id)));
    // The server responds to these requests after it has received the sends.
    for ride in others {
        rider.history(ride, "").await;
    }
    sent
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ride_locked_by_another_replica_delays_no_other_ride() {
    let database = Database::create().await;
    let server = Server::start_with(&database, &[("RIDEWIRE_DATABASE_TIMEOUT", "60s")]).await;
    let (rider, _) = server.open_ride("locked").await;
    let (other, driver) = server.open_ride("other").await;
    let mut stream = server.live_stream(&driver, "other").await;

    let mut elsewhere = database.client().await;
    let lock = lock_ride(&mut elsewhere, "locked").await;
    let waiting = [1, 2].map(|number| {
        let rider = rider.clone();
        tokio::spawn(async move { rider.send_with_id("locked", "Hello", &format!("waits {number}")).await })
    });
    until_waiting_for_locks(&database.client().await, 1).await;
    for _ in 0..20 {
        let sent = other.send("other", "Hello").await;
        assert_eq!(stream.next_of_type("message:new").await.data["id"], sent["id"]);
    }
    assert!(waiting.iter().all(|waits| !waits.is_finished()));

    lock.rollback().await.unwrap();
    let mut seqs = Vec::new();
    for waits in waiting {
        seqs.push(waits.await.unwrap().expect(201).json()["seq"].as_i64().unwrap());
    }
    seqs.sort_unstable();
    let head = database.head("locked").await;
    assert_eq!(seqs, [head - 1, head]);
}

/// The hints of a large batch are sent by the notifier, those of a small one in its transaction. Neither waits for the poll.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_replicas_are_notified_of_large_and_small_batches() {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_DATABASE_TIMEOUT", "60s"), ("RIDEWIRE_FALLBACK_POLL", "10m")];
    let (server, other) =
        (Server::start_with(&database, &settings).await, Server::start_with(&database, &settings).await);
    let mut streams = Vec::new();
    let mut rider = None;
    for ride in ["one", "two"].into_iter().chain(MANY) {
        let (first, driver) = server.open_ride(ride).await;
        streams.push(other.live_stream(&driver, ride).await);
        rider = Some(first);
    }
    let rider = rider.unwrap();
    let observer = database.client().await;
    let mut elsewhere = [database.client().await, database.client().await];
    for round in ["1", "2", "3"] {
        let [one, two] = &mut elsewhere;
        let (one, two) = (block_message_insert(one, "one", round).await, block_message_insert(two, "two", round).await);
        let sent = send_large_batch(&rider, &observer, round, MANY).await;
        one.rollback().await.unwrap();
        two.rollback().await.unwrap();
        for (sent, stream) in sent.into_iter().zip(&mut streams) {
            let sent = sent.await.unwrap();
            assert_eq!(stream.next_of_type("message:new").await.data["id"], sent["id"]);
        }
    }
    let metrics = scrape(&server).await;
    let small = metrics[r#"ridewire_batch_commands_bucket{le="4"}"#];
    assert!(small < metrics["ridewire_batch_commands_count"], "no batch was large");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_large_batch_does_not_delay_smaller_ones() {
    let database = Database::create().await;
    let server = Server::start_with(&database, &[("RIDEWIRE_DATABASE_TIMEOUT", "60s")]).await;
    let mut rider = None;
    for ride in ["one", "two", "three", "free"].into_iter().chain(MANY) {
        rider = Some(server.open_ride(ride).await.0);
    }
    let rider = rider.unwrap();
    let observer = database.client().await;
    let mut elsewhere = [database.client().await, database.client().await, database.client().await];
    let [one, two, three] = &mut elsewhere;
    let (one, two, three) = (
        block_message_insert(one, "one", "m").await,
        block_message_insert(two, "two", "m").await,
        block_message_insert(three, "three", "m").await,
    );

    let mut sent = send_large_batch(&rider, &observer, "m", ["three"].into_iter().chain(MANY)).await;
    one.rollback().await.unwrap();
    sent.remove(0).await.unwrap();
    until_waiting_for_locks(&observer, 2).await;
    two.rollback().await.unwrap();
    sent.remove(0).await.unwrap();
    until_waiting_for_locks(&observer, 1).await;

    send(&rider, "free", "m").await.unwrap();
    let held_up = sent.iter().filter(|sent| !sent.is_finished()).count();
    assert!(held_up > 1, "the batch is not large: {held_up}");
    three.rollback().await.unwrap();
    for sent in sent {
        sent.await.unwrap();
    }
}

/// Commands that the writer applied to stale cached rides conflict and are applied again. The others are stored immediately.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_rides_of_a_batch_do_not_delay_its_other_rides() {
    let database = Database::create().await;
    let settings =
        [("RIDEWIRE_DATABASE_TIMEOUT", "60s"), ("RIDEWIRE_NOTIFY", "off"), ("RIDEWIRE_FALLBACK_POLL", "10m")];
    let (server, other) =
        (Server::start_with(&database, &settings).await, Server::start_with(&database, &settings).await);
    let mut rider = None;
    for ride in ["one", "two"].into_iter().chain(MANY) {
        let (first, _) = server.open_ride(ride).await;
        first.send(ride, "loads the ride into the cache").await;
        rider = Some(first);
    }
    let rider = rider.unwrap();
    for ride in ["b", "d", "g"] {
        rider.on(&other).send(ride, "without a notification").await;
    }
    let observer = database.client().await;
    let mut elsewhere = [database.client().await, database.client().await];
    let [one, two] = &mut elsewhere;
    let (one, two) = (block_message_insert(one, "one", "m").await, block_message_insert(two, "two", "m").await);
    let sent = send_large_batch(&rider, &observer, "m", MANY).await;
    one.rollback().await.unwrap();
    two.rollback().await.unwrap();
    for sent in sent {
        let message = sent.await.unwrap();
        let ride = message["rideId"].as_str().unwrap();
        assert_eq!(message["seq"], database.head(ride).await, "on {ride}");
    }
    // The rides of each transaction.
    let query = "select string_agg(ride_id, '' order by ride_id) from messages where content = 'Hello' and \
                 ride_id = any ($1) group by xmin::text order by 1";
    let rows = observer.query(query, &[&MANY.as_slice()]).await.unwrap();
    let transactions: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(transactions, ["acefh", "bdg"]);
}

/// All replicas lock topics in byte order. Different orders would cause deadlocks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_locked_in_byte_order_with_any_collation() {
    let database = Database::with_icu_collation().await;
    let server = Server::start_with(&database, &[("RIDEWIRE_DATABASE_TIMEOUT", "60s")]).await;
    let service = server.service();
    service.broadcast(&["a", "B"], json!({})).await.expect(202);
    let observer = database.client().await;
    let a_is_less: bool = observer.query_one("select 'a' < 'B'", &[]).await.unwrap().get(0);
    assert!(a_is_less, "the collation sorts `a` before `B`");
    let mut elsewhere = database.client().await;
    let a = lock_topic(&mut elsewhere, "user/a").await;
    let broadcast = tokio::spawn(async move { service.broadcast(&["a", "B"], json!({})).await });
    let free = "select from topics where name = 'user/B' for update skip locked";
    eventually("the broadcast has locked B and waits for a", async || {
        observer.query(free, &[]).await.unwrap().is_empty().then_some(())
    })
    .await;
    a.rollback().await.unwrap();
    broadcast.await.unwrap().expect(202);
}
