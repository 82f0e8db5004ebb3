//! Batches of different rides go beside each other, those of one ride one after the other.

use crate::support::{Database, Server, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ride_that_another_replica_has_locked_holds_up_nobody_else() {
    let database = Database::create().await;
    let server = Server::with(&database, &[("RIDEWIRE_DATABASE_TIMEOUT", "60s")]).await;
    let (rider, _) = server.open_ride("locked").await;
    let (other, driver) = server.open_ride("other").await;
    let mut stream = server.live(&driver, "other").await;

    let mut elsewhere = database.client().await;
    let lock = elsewhere.transaction().await.unwrap();
    lock.execute("select from topics where name = 'ride/locked' for update", &[]).await.unwrap();
    let waiting = [1, 2].map(|number| {
        let rider = rider.clone();
        tokio::spawn(async move { rider.send_named("locked", "Hello", &format!("waits {number}")).await })
    });
    let observer = database.client().await;
    eventually("it waits for the lock", async || {
        let query = "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        observer.query_opt(query, &[]).await.unwrap()
    })
    .await;
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
