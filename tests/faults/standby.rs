//! What a transaction finds is acknowledged when a synchronous standby has it: it may have been committed without.

use serde_json::json;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::commits::Scene;
use crate::proxy::{Cut, Step};
use crate::support::{Answer, Cluster, Database, Server, eventually};

/// How many backends wait for a standby that work on this.
async fn waiting(client: &Client, query: &str) -> i64 {
    let waiting = "select count(*) from pg_stat_activity where wait_event = 'SyncRep' and query = $1";
    client.query_one(waiting, &[&query]).await.unwrap().get(0)
}

async fn set_standby(client: &Client, name: &str) {
    client.batch_execute(&format!("alter system set synchronous_standby_names = '{name}'")).await.unwrap();
    client.batch_execute("select pg_reload_conf()").await.unwrap();
}

/// From then on each commit waits for a standby that does not come.
async fn lose_standby(database: &Database) {
    let client = database.client().await;
    set_standby(&client, "nobody").await;
    let mut number = 0;
    eventually("commits wait for the standby", async || {
        // One that comes before the setting is done at once.
        let (commit, probe) = (format!("create table probe_{number} ()"), database.client().await);
        number += 1;
        let probing = tokio::spawn({
            let commit = commit.clone();
            async move { probe.batch_execute(&commit).await }
        });
        eventually("it is done, or waits", async || {
            let is_there = waiting(&client, &commit).await > 0;
            (is_there || probing.is_finished()).then_some(is_there)
        })
        .await
        .then_some(())
    })
    .await;
}

/// Has an answer come only when there is a standby again, that is none.
async fn answer_after_standby(database: &Database, mut sending: JoinHandle<Answer>) -> Answer {
    let client = database.client().await;
    tokio::select! {
        answer = &mut sending => panic!("answered before the standby has it: {}", answer.unwrap().status),
        () = eventually("a commit waits", async || (waiting(&client, "commit").await > 0).then_some(())) => {}
    }
    set_standby(&client, "").await;
    sending.await.unwrap()
}

/// As after a restart of Postgres, which ends the wait of a commit: it can be seen, and the standby does not have it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_in_doubt_that_is_found_is_acknowledged_when_the_standby_has_it() {
    let cluster = Cluster::own().await;
    let database = cluster.database();
    let scene = Scene::set(&database).await;
    for is_known in [false, true] {
        let ride = format!("known_{is_known}");
        scene.server.open_ride(&ride).await;
        if is_known {
            scene.rider.send(&ride, "so that the ride is known").await;
        }
        let (struck, held) = scene.proxy.cut_at_commit_and_hold(Cut::After, Step::Begin(0));
        let (rider, body) = (scene.rider.clone(), json!({"rideId": ride, "content": "Hello"}));
        let sending = tokio::spawn(async move { rider.post("messages", body).await });
        struck.await.unwrap();
        held.await.unwrap();
        let head = database.head(&ride).await;
        lose_standby(&database).await;
        scene.proxy.resume();
        let answer = answer_after_standby(&database, sending).await;
        assert_eq!(answer.expect(201).json()["seq"], head, "it is the one that was found");
        assert_eq!(database.head(&ride).await, head);
    }
}

/// The same where its sender finds it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_that_finds_its_message_is_acknowledged_when_the_standby_has_it() {
    let cluster = Cluster::own().await;
    let database = cluster.database();
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride").await;
    let message = rider.send_named("ride", "Hello", "a name").await.expect(201).json();
    lose_standby(&database).await;
    let again = tokio::spawn(async move { rider.send_named("ride", "Hello", "a name").await });
    let answer = answer_after_standby(&database, again).await;
    assert_eq!(answer.expect(200).json()["id"], message["id"]);
}
