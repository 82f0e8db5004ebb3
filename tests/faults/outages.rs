//! Postgres away, restored, or behind a network that forgets connections.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::proxy::Proxy;
use crate::support::{Cluster, Database, PATIENCE, Server, eventually};
use crate::two_at_a_time;
use crate::world::log_of;

/// How long a request waits for Postgres here. That it is told to come back in time is seen by the order of things: it is
/// answered while Postgres is still away, and only then is Postgres let back.
const BRIEF: (&str, &str) = ("RIDEWIRE_DATABASE_TIMEOUT", "4s");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_postgres_is_away_streams_stay_and_all_else_is_told_to_come_back() {
    let database = Database::create().await;
    let proxy = Proxy::start(&database.url).await;
    let url = proxy.url();
    let server = Server::with(&database, &[("DATABASE_URL", &url), BRIEF]).await;
    let (rider, driver) = server.open_ride("ride").await;
    let mut stream = driver.stream("ride", "heartbeat=5&types=message:new").await;
    stream.next_sync().await;
    let first = rider.send("ride", "before").await;
    assert_eq!(stream.next_of("message:new").await.seq(), first["seq"]);
    let mut poll = tokio::spawn({
        let rider = rider.clone();
        async move { rider.poll("ride", "after=2&wait=55&types=message:new").await }
    });
    // It waits, having been let in.
    eventually("it waits", async || (database.replicas_with("rider_1", "ride").await == 1).then_some(())).await;
    assert!(timeout(Duration::from_millis(100), &mut poll).await.is_err());

    proxy.close();
    for _ in 0..3 {
        let answer = rider.send_named("ride", "meanwhile", "meanwhile").await;
        assert!(!answer.header("retry-after").is_empty());
        answer.problem(503, "unavailable");
    }
    let mut put_off = driver.stream("ride", "after=0").await;
    assert_eq!(put_off.status, 200);
    assert_eq!(put_off.until_end().await, []);
    assert_eq!(put_off.retries.len(), 1);
    driver.get("messages/rides/ride/poll?after=2&wait=1").await.problem(503, "unavailable");
    driver.get("messages/rides/ride").await.problem(503, "unavailable");
    assert_eq!(reqwest::get(format!("{}/readyz", server.base)).await.unwrap().status(), 503);
    assert_eq!(reqwest::get(format!("{}/healthz", server.base)).await.unwrap().status(), 200);
    stream.next_comment(PATIENCE).await;

    proxy.open();
    let second = eventually("the server is back", async || {
        let answer = rider.send_named("ride", "after", "after").await;
        (answer.status != 503).then_some(answer)
    })
    .await
    .expect(201)
    .json();
    assert_eq!(stream.next_of("message:new").await.data["id"], second["id"]);
    let polled = timeout(PATIENCE, poll).await.unwrap().unwrap();
    assert_eq!(polled["events"][0]["data"]["id"], second["id"]);
    let log = log_of(&database, "ride").await;
    let mut contents: Vec<_> = log.messages().map(|message| message["content"].clone()).collect();
    // What was refused may have come to be later, once.
    contents.sort_by_key(|content| *content == "meanwhile");
    assert!(contents == ["before", "after"] || contents == ["before", "after", "meanwhile"], "{contents:?}");
    assert!(proxy.accepted() > 0 && proxy.commits() > 0, "all went through the proxy");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_connections_are_replaced_and_nobody_notices() {
    let database = Database::create().await;
    let proxy = Proxy::start(&database.url).await;
    let url = proxy.url();
    let server = Server::with(&database, &[("DATABASE_URL", &url)]).await;
    let (rider, driver) = server.open_ride("ride").await;
    let mut stream = server.live(&driver, "ride").await;
    for round in 0..20 {
        proxy.cut();
        let message = rider.send("ride", &round.to_string()).await;
        assert_eq!(stream.next_of("message:new").await.data["id"], message["id"]);
        assert_eq!(driver.history("ride", "").await["messages"][round]["id"], message["id"]);
    }
}

/// A firewall that forgets a connection tells neither side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_a_network_has_forgotten_hold_nothing_up_for_long() {
    let database = Database::create().await;
    let proxy = Proxy::start(&database.url).await;
    let url = proxy.url();
    let server = Server::with(&database, &[("DATABASE_URL", &url), ("RIDEWIRE_FALLBACK_POLL", "500ms"), BRIEF]).await;
    let (rider, driver) = server.open_ride("ride").await;
    let mut stream = server.live(&driver, "ride").await;
    proxy.stall();
    let began = Instant::now();
    // The kernel would wait for a quarter of an hour.
    let back = timeout(PATIENCE, async {
        loop {
            let answer = rider.send_named("ride", "through a new connection", "name").await;
            if answer.status != 503 {
                return answer;
            }
        }
    });
    let message = back.await.expect("the writer finds another connection").json();
    eprintln!("writes were back after {:?}", began.elapsed());
    assert_eq!(stream.next_of("message:new").await.data["id"], message["id"]);
    let history = timeout(PATIENCE, async {
        loop {
            let answer = driver.get("messages/rides/ride").await;
            if answer.status != 503 {
                return answer.expect(200).json();
            }
        }
    });
    let history = history.await.expect("reads find another connection");
    assert_eq!(history["messages"].as_array().unwrap().len(), 1);
    let mut again = driver.stream("ride", "after=1&types=message:new").await;
    again.next_sync().await;
    assert_eq!(again.next_of("message:new").await.data["id"], message["id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_database_ends_streams_which_then_begin_anew() {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_FALLBACK_POLL", "200ms")];
    let servers = [Server::with(&database, &settings).await, Server::with(&database, &settings).await];
    let (rider, driver) = servers[0].open_ride("ride").await;
    let mut streams = [servers[0].live(&driver, "ride").await, servers[1].live(&driver, "ride").await];
    for number in 0..5 {
        rider.send("ride", &number.to_string()).await;
    }
    for stream in &mut streams {
        for seq in 2..=6 {
            assert_eq!(stream.next_of("message:new").await.seq(), seq);
        }
    }
    // As a backup has it from when there were two messages.
    database
        .client()
        .await
        .batch_execute(
            "begin;
             update topics set last_seq = 3 where name = 'ride/ride';
             delete from events where topic = 'ride/ride' and seq > 3;
             delete from messages where ride_id = 'ride' and seq > 3;
             commit",
        )
        .await
        .unwrap();
    for stream in &mut streams {
        let end = stream.until_end().await;
        let end: Vec<_> = end.iter().map(|event| (event.kind.as_str(), &event.data)).collect();
        assert_eq!(end, [("stream:closing", &json!({"reason": "reset"}))]);
    }
    for (stream, server) in streams.iter_mut().zip(&servers) {
        assert_eq!(stream.last_id, "6");
        *stream = driver.on(server).stream_from("ride", "", Some("6")).await;
        let sync = stream.next_sync().await;
        assert_eq!((&sync["resumed"], &sync["cursor"], &sync["gap"]), (&json!(false), &json!("3"), &json!(null)));
    }
    let message = rider.send("ride", "in another life").await;
    assert_eq!(message["seq"], 4);
    for stream in &mut streams {
        assert_eq!(stream.next_of("message:new").await.data["id"], message["id"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_postgres_only_reads_writes_are_told_to_come_back_and_reads_go_on() {
    let cluster = Cluster::own().await;
    let database = cluster.database();
    let server = Server::with(&database, &[BRIEF]).await;
    let (rider, driver) = server.open_ride("ride").await;
    let mut stream = server.live(&driver, "ride").await;
    let first = rider.send("ride", "before").await;
    assert_eq!(stream.next_of("message:new").await.data["id"], first["id"]);
    let client = database.client().await;
    let set = async |value: &str| {
        let set = format!("alter system set default_transaction_read_only = {value}");
        client.batch_execute("set transaction_read_only = off").await.unwrap();
        client.batch_execute("set default_transaction_read_only = off").await.unwrap();
        client.batch_execute(&set).await.unwrap();
        client.batch_execute("select pg_reload_conf()").await.unwrap();
    };
    set("on").await;
    let refused = eventually("writes are refused", async || {
        let answer = rider.send_named("ride", "meanwhile", "meanwhile").await;
        (answer.status != 201 && answer.status != 200).then_some(answer)
    })
    .await;
    assert!(!refused.header("retry-after").is_empty());
    refused.problem(503, "unavailable");
    let head = database.head("ride").await;
    rider.send_named("ride", "still", "still").await.problem(503, "unavailable");
    rider.edit(&first, "changed").await.problem(503, "unavailable");
    assert_eq!(database.head("ride").await, head, "nothing is half done");
    assert_eq!(driver.history("ride", "").await["messages"][0]["content"], "before");
    server.live(&rider, "ride").await;

    set("off").await;
    let sent = eventually("writes go on", async || {
        let answer = rider.send_named("ride", "after", "after").await;
        answer.status.is_success().then(|| answer.json())
    })
    .await;
    loop {
        let event = stream.next_of("message:new").await;
        if event.data["id"] == sent["id"] {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_postgres_is_slow_writes_are_told_to_come_back_in_time_and_are_there_once() {
    let database = Database::create().await;
    let server = Server::with(&database, &[BRIEF]).await;
    let (rider, driver) = server.open_ride("ride").await;
    let mut stream = driver.stream("ride", "heartbeat=5&types=message:new").await;
    stream.next_sync().await;
    let first = rider.send("ride", "before").await;
    assert_eq!(stream.next_of("message:new").await.seq(), first["seq"]);

    // As slow as can be: nothing that is appended to the log comes to an end.
    let brake = database.client().await;
    brake.batch_execute("begin; lock table events in exclusive mode").await.unwrap();
    for _ in 0..3 {
        let answer = rider.send_named("ride", "meanwhile", "meanwhile").await;
        assert!(!answer.header("retry-after").is_empty());
        answer.problem(503, "unavailable");
    }
    let history = driver.get("messages/rides/ride").await.expect(200).json();
    assert_eq!(history["messages"].as_array().unwrap().len(), 1);
    stream.next_comment(PATIENCE).await;

    brake.batch_execute("rollback").await.unwrap();
    let second = eventually("writes go on", async || {
        let answer = rider.send_named("ride", "meanwhile", "meanwhile").await;
        (answer.status != 503).then_some(answer)
    })
    .await
    .json();
    assert_eq!(stream.next_of("message:new").await.data["id"], second["id"]);
    let log = log_of(&database, "ride").await;
    assert_eq!(log.count("message:new"), 2, "{:?}", log.kinds());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_disk_is_full_writes_are_told_to_come_back_and_streams_stay() {
    let _turn = two_at_a_time().await;
    let Some(mut cluster) = Cluster::on_a_disk_of(300).await else { return };
    let database = cluster.database();
    let server = Server::with(&database, &[BRIEF]).await;
    let (rider, driver) = server.open_ride("ride").await;
    let mut stream = driver.stream("ride", "heartbeat=5&types=message:new").await;
    stream.next_sync().await;
    let ballast = cluster.fill_disk().await;
    // What has its pages already still fits for a while.
    let large = "x".repeat(4_000);
    let mut sent = Vec::new();
    let refused = loop {
        let answer = rider.send_named("ride", &large, &format!("name-{}", sent.len())).await;
        if answer.status == 503 {
            break answer;
        }
        sent.push(answer.expect(201).json());
        // As much as the whole disk takes.
        assert!(sent.len() < 300 * 1024 * 1024 / large.len(), "the disk is not full: {} sent", sent.len());
    };
    assert!(!refused.header("retry-after").is_empty());
    refused.problem(503, "unavailable");
    for message in &sent {
        assert_eq!(stream.next_of("message:new").await.data["id"], message["id"]);
    }
    stream.next_comment(PATIENCE).await;

    drop(ballast);
    let last = eventually("writes go on", async || {
        // A Postgres that could not write its log may have given up.
        cluster.start_if_ended().await;
        let answer = rider.send_named("ride", &large, &format!("name-{}", sent.len())).await;
        (answer.status != 503).then_some(answer)
    })
    .await
    .json();
    assert_eq!(stream.next_of("message:new").await.data["id"], last["id"], "the same stream");
    let log = log_of(&database, "ride").await;
    assert_eq!(log.count("message:new"), sent.len() + 1);
}
