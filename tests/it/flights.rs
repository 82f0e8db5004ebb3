//! Batches of different rides go beside each other, those of one ride one after the other.

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::metrics::scrape;
use crate::support::{Database, Server, User, eventually, hold, lock, lock_topic, until_waiting};

const MANY: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

pub(crate) fn send(rider: &User, ride: &'static str, name: &str) -> JoinHandle<Value> {
    let (rider, name) = (rider.clone(), name.to_owned());
    tokio::spawn(async move { rider.send_named(ride, "Hello", &name).await.expect(201).json() })
}

/// Sends to the rides "one" and "two", where that is held, and then to others: while both batches wait, those gather to a
/// large one.
pub(crate) async fn gather(
    rider: &User,
    observer: &Client,
    name: &str,
    others: impl IntoIterator<Item = &'static str>,
) -> Vec<JoinHandle<Value>> {
    let mut sent = vec![send(rider, "one", name)];
    until_waiting(observer, 1).await;
    sent.push(send(rider, "two", name));
    until_waiting(observer, 2).await;
    let others: Vec<_> = others.into_iter().collect();
    sent.extend(others.iter().map(|ride| send(rider, ride, name)));
    // What is asked after them is answered after they have come.
    for ride in others {
        rider.history(ride, "").await;
    }
    sent
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ride_that_another_replica_has_locked_holds_up_nobody_else() {
    let database = Database::create().await;
    let server = Server::with(&database, &[("RIDEWIRE_DATABASE_TIMEOUT", "60s")]).await;
    let (rider, _) = server.open_ride("locked").await;
    let (other, driver) = server.open_ride("other").await;
    let mut stream = server.live(&driver, "other").await;

    let mut elsewhere = database.client().await;
    let lock = lock(&mut elsewhere, "locked").await;
    let waiting = [1, 2].map(|number| {
        let rider = rider.clone();
        tokio::spawn(async move { rider.send_named("locked", "Hello", &format!("waits {number}")).await })
    });
    until_waiting(&database.client().await, 1).await;
    for _ in 0..20 {
        let sent = other.send("other", "Hello").await;
        assert_eq!(stream.next_of("message:new").await.data["id"], sent["id"]);
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

/// A large commit's hints are gathered, a small one's go with it; neither waits for the fallback.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_replicas_are_told_of_large_batches_and_of_small_ones() {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_DATABASE_TIMEOUT", "60s"), ("RIDEWIRE_FALLBACK_POLL", "10m")];
    let (server, other) = (Server::with(&database, &settings).await, Server::with(&database, &settings).await);
    let mut streams = Vec::new();
    let mut rider = None;
    for ride in ["one", "two"].into_iter().chain(MANY) {
        let (first, driver) = server.open_ride(ride).await;
        streams.push(other.live(&driver, ride).await);
        rider = Some(first);
    }
    let rider = rider.unwrap();
    let observer = database.client().await;
    let mut elsewhere = [database.client().await, database.client().await];
    for round in ["1", "2", "3"] {
        let [one, two] = &mut elsewhere;
        let (one, two) = (hold(one, "one", round).await, hold(two, "two", round).await);
        let sent = gather(&rider, &observer, round, MANY).await;
        one.rollback().await.unwrap();
        two.rollback().await.unwrap();
        for (sent, stream) in sent.into_iter().zip(&mut streams) {
            let sent = sent.await.unwrap();
            assert_eq!(stream.next_of("message:new").await.data["id"], sent["id"]);
        }
    }
    let metrics = scrape(&server).await;
    let of_four_at_most = metrics[r#"ridewire_batch_commands_bucket{le="4"}"#];
    assert!(of_four_at_most < metrics["ridewire_batch_commands_count"], "no batch was large");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_batch_that_is_held_up_is_not_waited_for_until_another_is_as_large() {
    let database = Database::create().await;
    let server = Server::with(&database, &[("RIDEWIRE_DATABASE_TIMEOUT", "60s")]).await;
    let mut rider = None;
    for ride in ["one", "two", "three", "free"].into_iter().chain(MANY) {
        rider = Some(server.open_ride(ride).await.0);
    }
    let rider = rider.unwrap();
    let observer = database.client().await;
    let mut elsewhere = [database.client().await, database.client().await, database.client().await];
    let [one, two, three] = &mut elsewhere;
    let (one, two, three) = (hold(one, "one", "m").await, hold(two, "two", "m").await, hold(three, "three", "m").await);

    let mut sent = gather(&rider, &observer, "m", ["three"].into_iter().chain(MANY)).await;
    one.rollback().await.unwrap();
    sent.remove(0).await.unwrap();
    until_waiting(&observer, 2).await;
    two.rollback().await.unwrap();
    sent.remove(0).await.unwrap();
    until_waiting(&observer, 1).await;

    send(&rider, "free", "m").await.unwrap();
    let held_up = sent.iter().filter(|sent| !sent.is_finished()).count();
    assert!(held_up > 1, "the batch was to be a large one: {held_up}");
    three.rollback().await.unwrap();
    for sent in sent {
        sent.await.unwrap();
    }
}

/// What of a batch was judged by what is no longer so is judged again; the rest is stored at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rides_that_another_replica_has_written_to_unheard_take_no_others_along() {
    let database = Database::create().await;
    let settings =
        [("RIDEWIRE_DATABASE_TIMEOUT", "60s"), ("RIDEWIRE_NOTIFY", "off"), ("RIDEWIRE_FALLBACK_POLL", "10m")];
    let (server, other) = (Server::with(&database, &settings).await, Server::with(&database, &settings).await);
    let mut rider = None;
    for ride in ["one", "two"].into_iter().chain(MANY) {
        let (first, _) = server.open_ride(ride).await;
        first.send(ride, "so that the ride is known").await;
        rider = Some(first);
    }
    let rider = rider.unwrap();
    for ride in ["b", "d", "g"] {
        rider.on(&other).send(ride, "unheard").await;
    }
    let observer = database.client().await;
    let mut elsewhere = [database.client().await, database.client().await];
    let [one, two] = &mut elsewhere;
    let (one, two) = (hold(one, "one", "m").await, hold(two, "two", "m").await);
    let sent = gather(&rider, &observer, "m", MANY).await;
    one.rollback().await.unwrap();
    two.rollback().await.unwrap();
    for sent in sent {
        let message = sent.await.unwrap();
        let ride = message["rideId"].as_str().unwrap();
        assert_eq!(message["seq"], database.head(ride).await, "on {ride}");
    }
    // Which transactions they came by.
    let query = "select string_agg(ride_id, '' order by ride_id) from messages where content = 'Hello' and \
                 ride_id = any ($1) group by xmin::text order by 1";
    let rows = observer.query(query, &[&MANY.as_slice()]).await.unwrap();
    let transactions: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(transactions, ["acefh", "bdg"]);
}

/// By bytes, as everybody who locks several: in another order two replicas would wait for each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_locked_in_the_order_of_their_bytes_however_the_database_sorts() {
    let database = Database::sorted_for_people().await;
    let server = Server::with(&database, &[("RIDEWIRE_DATABASE_TIMEOUT", "60s")]).await;
    let service = server.service();
    service.broadcast(&["a", "B"], json!({})).await.expect(202);
    let observer = database.client().await;
    let a_is_less: bool = observer.query_one("select 'a' < 'B'", &[]).await.unwrap().get(0);
    assert!(a_is_less, "as people sort");
    let mut elsewhere = database.client().await;
    let a = lock_topic(&mut elsewhere, "user/a").await;
    let told = tokio::spawn(async move { service.broadcast(&["a", "B"], json!({})).await });
    let free = "select from topics where name = 'user/B' for update skip locked";
    eventually("who waits for a has B", async || observer.query(free, &[]).await.unwrap().is_empty().then_some(()))
        .await;
    a.rollback().await.unwrap();
    told.await.unwrap().expect(202);
}
