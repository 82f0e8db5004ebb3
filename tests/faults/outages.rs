//! Postgres unavailable, read-only, slow, full or restored, and stalled network connections.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::fixtures::ride_log;
use crate::limit_heavy_tests;
use crate::proxy::Proxy;
use crate::support::{Cluster, Database, Server, TIMEOUT, eventually};

/// How long a request waits for Postgres. Each test restores Postgres only after the 503 responses have arrived, so their
/// order proves that the timeout works.
const SHORT_TIMEOUT: (&str, &str) = ("RIDEWIRE_DATABASE_TIMEOUT", "4s");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_postgres_is_unavailable_streams_stay_open_and_requests_get_503() {
    let database = Database::create().await;
    let proxy = Proxy::start(&database.url).await;
    let url = proxy.url();
    let server = Server::start_with(&database, &[("DATABASE_URL", &url), SHORT_TIMEOUT]).await;
    let (rider, driver) = server.open_ride("ride").await;
    let mut stream = driver.stream("ride", "heartbeat=5&types=message:new").await;
    stream.next_sync().await;
    let first = rider.send("ride", "before").await;
    assert_eq!(stream.next_of_type("message:new").await.seq(), first["seq"]);
    let mut poll = tokio::spawn({
        let rider = rider.clone();
        async move { rider.poll("ride", "after=2&wait=55&types=message:new").await }
    });
    // The poll is admitted and waits.
    eventually("the poll waits", async || {
        (database.replicas_with_presence("rider_1", "ride").await == 1).then_some(())
    })
    .await;
    assert!(timeout(Duration::from_millis(100), &mut poll).await.is_err());

    proxy.close();
    for _ in 0..3 {
        let response = rider.send_with_id("ride", "meanwhile", "meanwhile").await;
        assert!(!response.header("retry-after").is_empty());
        response.problem(503, "unavailable");
    }
    let mut rejected_stream = driver.stream("ride", "after=0").await;
    assert_eq!(rejected_stream.status, 200);
    assert_eq!(rejected_stream.until_end().await, []);
    assert_eq!(rejected_stream.retries.len(), 1);
    driver.get("messages/rides/ride/poll?after=2&wait=1").await.problem(503, "unavailable");
    driver.get("messages/rides/ride").await.problem(503, "unavailable");
    assert_eq!(reqwest::get(format!("{}/readyz", server.base)).await.unwrap().status(), 503);
    assert_eq!(reqwest::get(format!("{}/healthz", server.base)).await.unwrap().status(), 200);
    stream.next_comment(TIMEOUT).await;

    proxy.open();
    let second = eventually("the server is back", async || {
        let response = rider.send_with_id("ride", "after", "after").await;
        (response.status != 503).then_some(response)
    })
    .await
    .expect(201)
    .json();
    assert_eq!(stream.next_of_type("message:new").await.data["id"], second["id"]);
    let polled = timeout(TIMEOUT, poll).await.unwrap().unwrap();
    assert_eq!(polled["events"][0]["data"]["id"], second["id"]);
    let log = ride_log(&database, "ride").await;
    let mut contents: Vec<_> = log.messages().map(|message| message["content"].clone()).collect();
    // A rejected message may have been stored later, once.
    contents.sort_by_key(|content| *content == "meanwhile");
    assert!(contents == ["before", "after"] || contents == ["before", "after", "meanwhile"], "{contents:?}");
    assert!(proxy.accepted() > 0 && proxy.commits() > 0, "all connections went through the proxy");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_database_connections_are_replaced_without_errors() {
    let database = Database::create().await;
    let proxy = Proxy::start(&database.url).await;
    let url = proxy.url();
    let server = Server::start_with(&database, &[("DATABASE_URL", &url)]).await;
    let (rider, driver) = server.open_ride("ride").await;
    let mut stream = server.live_stream(&driver, "ride").await;
    for round in 0..20 {
        proxy.cut();
        let message = rider.send("ride", &round.to_string()).await;
        assert_eq!(stream.next_of_type("message:new").await.data["id"], message["id"]);
        assert_eq!(driver.history("ride", "").await["messages"][round]["id"], message["id"]);
    }
}

/// Connections that a firewall has dropped without a reset to either side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_database_connections_are_replaced_within_the_timeout() {
    let database = Database::create().await;
    let proxy = Proxy::start(&database.url).await;
    let url = proxy.url();
    let server =
        Server::start_with(&database, &[("DATABASE_URL", &url), ("RIDEWIRE_FALLBACK_POLL", "500ms"), SHORT_TIMEOUT])
            .await;
    let (rider, driver) = server.open_ride("ride").await;
    let mut stream = server.live_stream(&driver, "ride").await;
    proxy.stall();
    let began = Instant::now();
    // The kernel alone would retransmit for 15 minutes.
    let back = timeout(TIMEOUT, async {
        loop {
            let response = rider.send_with_id("ride", "through a new connection", "name").await;
            if response.status != 503 {
                return response;
            }
        }
    });
    let message = back.await.expect("the writer finds another connection").json();
    eprintln!("writes succeeded after {:?}", began.elapsed());
    assert_eq!(stream.next_of_type("message:new").await.data["id"], message["id"]);
    let history = timeout(TIMEOUT, async {
        loop {
            let response = driver.get("messages/rides/ride").await;
            if response.status != 503 {
                return response.expect(200).json();
            }
        }
    });
    let history = history.await.expect("reads find another connection");
    assert_eq!(history["messages"].as_array().unwrap().len(), 1);
    let mut again = driver.stream("ride", "after=1&types=message:new").await;
    again.next_sync().await;
    assert_eq!(again.next_of_type("message:new").await.data["id"], message["id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_database_resets_streams_which_then_resume_at_its_head() {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_FALLBACK_POLL", "200ms")];
    let servers = [Server::start_with(&database, &settings).await, Server::start_with(&database, &settings).await];
    let (rider, driver) = servers[0].open_ride("ride").await;
    let mut streams = [servers[0].live_stream(&driver, "ride").await, servers[1].live_stream(&driver, "ride").await];
    for number in 0..5 {
        rider.send("ride", &number.to_string()).await;
    }
    for stream in &mut streams {
        for seq in 2..=6 {
            assert_eq!(stream.next_of_type("message:new").await.seq(), seq);
        }
    }
    // As in a backup from the time when there were two messages.
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
    let message = rider.send("ride", "after the restore").await;
    assert_eq!(message["seq"], 4);
    for stream in &mut streams {
        assert_eq!(stream.next_of_type("message:new").await.data["id"], message["id"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_postgres_is_read_only_writes_get_503_and_reads_continue() {
    let cluster = Cluster::dedicated().await;
    let database = cluster.database();
    let server = Server::start_with(&database, &[SHORT_TIMEOUT]).await;
    let (rider, driver) = server.open_ride("ride").await;
    let mut stream = server.live_stream(&driver, "ride").await;
    let first = rider.send("ride", "before").await;
    assert_eq!(stream.next_of_type("message:new").await.data["id"], first["id"]);
    let client = database.client().await;
    let set = async |value: &str| {
        let set = format!("alter system set default_transaction_read_only = {value}");
        client.batch_execute("set transaction_read_only = off").await.unwrap();
        client.batch_execute("set default_transaction_read_only = off").await.unwrap();
        client.batch_execute(&set).await.unwrap();
        client.batch_execute("select pg_reload_conf()").await.unwrap();
    };
    set("on").await;
    let rejected = eventually("writes are rejected", async || {
        let response = rider.send_with_id("ride", "meanwhile", "meanwhile").await;
        (response.status != 201 && response.status != 200).then_some(response)
    })
    .await;
    assert!(!rejected.header("retry-after").is_empty());
    rejected.problem(503, "unavailable");
    let head = database.head("ride").await;
    rider.send_with_id("ride", "still", "still").await.problem(503, "unavailable");
    rider.edit(&first, "changed").await.problem(503, "unavailable");
    assert_eq!(database.head("ride").await, head, "nothing is stored partially");
    assert_eq!(driver.history("ride", "").await["messages"][0]["content"], "before");
    server.live_stream(&rider, "ride").await;

    set("off").await;
    let sent = eventually("writes succeed", async || {
        let response = rider.send_with_id("ride", "after", "after").await;
        response.status.is_success().then(|| response.json())
    })
    .await;
    loop {
        let event = stream.next_of_type("message:new").await;
        if event.data["id"] == sent["id"] {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_postgres_is_slow_writes_get_503_in_time_and_are_stored_once() {
    let database = Database::create().await;
    let server = Server::start_with(&database, &[SHORT_TIMEOUT]).await;
    let (rider, driver) = server.open_ride("ride").await;
    let mut stream = driver.stream("ride", "heartbeat=5&types=message:new").await;
    stream.next_sync().await;
    let first = rider.send("ride", "before").await;
    assert_eq!(stream.next_of_type("message:new").await.seq(), first["seq"]);

    // Every append to the log is blocked.
    let table_lock = database.client().await;
    table_lock.batch_execute("begin; lock table events in exclusive mode").await.unwrap();
    for _ in 0..3 {
        let response = rider.send_with_id("ride", "meanwhile", "meanwhile").await;
        assert!(!response.header("retry-after").is_empty());
        response.problem(503, "unavailable");
    }
    let history = driver.get("messages/rides/ride").await.expect(200).json();
    assert_eq!(history["messages"].as_array().unwrap().len(), 1);
    stream.next_comment(TIMEOUT).await;

    table_lock.batch_execute("rollback").await.unwrap();
    let second = eventually("writes succeed", async || {
        let response = rider.send_with_id("ride", "meanwhile", "meanwhile").await;
        (response.status != 503).then_some(response)
    })
    .await
    .json();
    assert_eq!(stream.next_of_type("message:new").await.data["id"], second["id"]);
    let log = ride_log(&database, "ride").await;
    assert_eq!(log.count("message:new"), 2, "{:?}", log.kinds());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_disk_is_full_writes_get_503_and_streams_stay_open() {
    let _permit = limit_heavy_tests().await;
    let Some(mut cluster) = Cluster::on_small_disk(300).await else { return };
    let database = cluster.database();
    let server = Server::start_with(&database, &[SHORT_TIMEOUT]).await;
    let (rider, driver) = server.open_ride("ride").await;
    let mut stream = driver.stream("ride", "heartbeat=5&types=message:new").await;
    stream.next_sync().await;
    let ballast = cluster.fill_disk().await;
    // Tables may still have free space in their pages.
    let large = "x".repeat(4_000);
    let mut sent = Vec::new();
    let rejected = loop {
        let response = rider.send_with_id("ride", &large, &format!("name-{}", sent.len())).await;
        if response.status == 503 {
            break response;
        }
        sent.push(response.expect(201).json());
        // An upper bound: the size of the whole disk.
        assert!(sent.len() < 300 * 1024 * 1024 / large.len(), "the disk is not full: {} sent", sent.len());
    };
    assert!(!rejected.header("retry-after").is_empty());
    rejected.problem(503, "unavailable");
    for message in &sent {
        assert_eq!(stream.next_of_type("message:new").await.data["id"], message["id"]);
    }
    stream.next_comment(TIMEOUT).await;

    drop(ballast);
    let last = eventually("writes succeed", async || {
        // Postgres may have exited because it could not write its WAL.
        cluster.start_if_exited().await;
        let response = rider.send_with_id("ride", &large, &format!("name-{}", sent.len())).await;
        (response.status != 503).then_some(response)
    })
    .await
    .json();
    assert_eq!(stream.next_of_type("message:new").await.data["id"], last["id"], "the same stream");
    let log = ride_log(&database, "ride").await;
    assert_eq!(log.count("message:new"), sent.len() + 1);
}
