//! A commit that is found later is acknowledged only after a synchronous standby has it.

use serde_json::json;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::commits::Setup;
use crate::proxy::{Cut, Step};
use crate::support::{Cluster, Database, Response, Server, eventually};

/// Returns how many backends that run this query wait for a standby.
async fn waiting(client: &Client, query: &str) -> i64 {
    let waiting = "select count(*) from pg_stat_activity where wait_event = 'SyncRep' and query = $1";
    client.query_one(waiting, &[&query]).await.unwrap().get(0)
}

async fn set_standby(client: &Client, name: &str) {
    client.batch_execute(&format!("alter system set synchronous_standby_names = '{name}'")).await.unwrap();
    client.batch_execute("select pg_reload_conf()").await.unwrap();
}

/// Configures a standby that never connects, so each commit waits from then on.
async fn lose_standby(database: &Database) {
    let client = database.client().await;
    set_standby(&client, "nobody").await;
    let mut number = 0;
    eventually("commits wait for the standby", async || {
        // A commit before the setting takes effect completes at once.
        let (commit, probe) = (format!("create table probe_{number} ()"), database.client().await);
        number += 1;
        let probing = tokio::spawn({
            let commit = commit.clone();
            async move { probe.batch_execute(&commit).await }
        });
        eventually("it completes or waits", async || {
            let is_waiting = waiting(&client, &commit).await > 0;
            (is_waiting || probing.is_finished()).then_some(is_waiting)
        })
        .await
        .then_some(())
    })
    .await;
}

/// Checks that the response comes only after the wait for a standby is switched off.
async fn response_after_standby(database: &Database, mut sending: JoinHandle<Response>) -> Response {
    let client = database.client().await;
    tokio::select! {
        response = &mut sending => panic!("returned before the standby has it: {}", response.unwrap().status),
        () = eventually("a commit waits", async || (waiting(&client, "commit").await > 0).then_some(())) => {}
    }
    set_standby(&client, "").await;
    sending.await.unwrap()
}

/// As after a restart of Postgres, which ends the wait of a commit: the commit is visible but not replicated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_in_doubt_that_is_found_is_acknowledged_after_it_is_replicated() {
    let cluster = Cluster::dedicated().await;
    let database = cluster.database();
    let setup = Setup::new(&database).await;
    for is_cached in [false, true] {
        let ride = format!("cached_{is_cached}");
        setup.server.open_ride(&ride).await;
        if is_cached {
            setup.rider.send(&ride, "load the ride into the cache").await;
        }
        let (injected, paused) = setup.proxy.cut_at_commit_and_pause(Cut::After, Step::Begin(0));
        let (rider, body) = (setup.rider.clone(), json!({"rideId": ride, "content": "Hello"}));
        let sending = tokio::spawn(async move { rider.post("messages", body).await });
        injected.await.unwrap();
        paused.await.unwrap();
        let head = database.head(&ride).await;
        lose_standby(&database).await;
        setup.proxy.resume();
        let response = response_after_standby(&database, sending).await;
        assert_eq!(response.expect(201).json()["seq"], head, "it is the commit that was found");
        assert_eq!(database.head(&ride).await, head);
    }
}

/// The same for the sender's own retry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_that_finds_its_message_is_acknowledged_after_it_is_replicated() {
    let cluster = Cluster::dedicated().await;
    let database = cluster.database();
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride").await;
    let message = rider.send_with_id("ride", "Hello", "a name").await.expect(201).json();
    lose_standby(&database).await;
    let again = tokio::spawn(async move { rider.send_with_id("ride", "Hello", "a name").await });
    let response = response_after_standby(&database, again).await;
    assert_eq!(response.expect(200).json()["id"], message["id"]);
}
