//! A server's life: how it starts, says that it is well, and stops.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::metrics::scrape;
use crate::support::{Answer, Cluster, Database, Server, eventually};

async fn get(server: &Server, path: &str) -> Answer {
    let url = format!("{}/{path}", server.base);
    Answer::of(url.clone(), reqwest::get(&url).await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_listens_is_well() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    assert_eq!(get(&server, "healthz").await.expect(200).text(), "ok");
    let ready = eventually("the listener hears", async || {
        let ready = get(&server, "readyz").await.expect(200).json();
        (ready["listen"] == "listening").then_some(ready)
    })
    .await;
    assert_eq!(
        ready,
        json!({ "status": "ok", "database": true, "writable": true, "keys": true, "listen": "listening" })
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_notify_replicas_find_out_by_looking() {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_NOTIFY", "off"), ("RIDEWIRE_FALLBACK_POLL", "200ms")];
    let (one, two) = (Server::with(&database, &settings).await, Server::with(&database, &settings).await);
    assert_eq!(get(&one, "readyz").await.expect(200).json()["listen"], "off");
    let (rider, driver) = one.open_ride("ride_1").await;
    let mut stream = two.live(&driver, "ride_1").await;
    let sent = rider.send("ride_1", "Hello").await;
    assert_eq!(stream.next_of("message:new").await.data, sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_ends_streams_and_polls_first_and_then_the_server() {
    let database = Database::create().await;
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let server = Server::start(&database).await;
        let other = Server::start(&database).await;
        let ride = format!("ride_{}", signal.as_str());
        let (rider, driver) = server.open_ride(&ride).await;
        let sent = rider.send(&ride, "Hello").await;
        let mut streams = [server.live(&driver, &ride).await, server.live(&rider, &ride).await];
        let polling = {
            let (user, ride) = (server.service(), ride.clone());
            tokio::spawn(async move { user.poll(&ride, "after=2&wait=55").await })
        };
        eventually("the poll has been taken", async || {
            (scrape(&server).await.get(r#"ridewire_open{transport="poll"}"#) == Some(&1.0)).then_some(())
        })
        .await;
        let asked = Instant::now();
        server.signal(signal);
        for stream in &mut streams {
            let before = stream.retries.len();
            let events = stream.until_end().await;
            assert_eq!(events.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), ["stream:closing"]);
            assert!(events[0].data["reason"].is_string());
            assert!(stream.retries.len() > before, "it says when to come back");
        }
        let polled = polling.await.unwrap();
        assert_eq!((&polled["events"], &polled["cursor"]), (&json!([]), &json!("2")));
        assert!(server.terminate().await.success());
        assert!(asked.elapsed() < Duration::from_secs(55), "the poll was not waited for");
        // Somewhere else it goes on where it ended.
        rider.on(&other).send(&ride, "again").await;
        let mut stream = driver.on(&other).stream_from(&ride, "", Some(&streams[0].last_id)).await;
        assert_eq!(stream.next_sync().await["cursor"], sent["seq"].to_string());
        stream.find("message:new").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_is_away_is_told_and_what_it_had_acknowledged_is_there_again() {
    let mut cluster = Cluster::own().await;
    let database = cluster.database();
    let server = Server::with(&database, &[("RIDEWIRE_DATABASE_TIMEOUT", "2s")]).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let mut open = server.live(&driver, "ride_1").await;
    let sent = eventually("the first is written", async || {
        let answer = rider.send_named("ride_1", "Hello", "m-1").await;
        answer.status.is_success().then(|| answer.json())
    })
    .await;
    assert_eq!(open.next_of("message:new").await.data, sent);

    cluster.stop_immediate().await;
    let refused = rider.send_named("ride_1", "Are you there?", "m-2").await;
    assert!(!refused.header("retry-after").is_empty());
    refused.problem(503, "unavailable");
    let refused = rider.get("messages/rides/ride_1").await;
    assert!(!refused.header("retry-after").is_empty());
    refused.problem(503, "unavailable");
    let answer = get(&server, "readyz").await;
    assert!(!answer.header("retry-after").is_empty());
    let ready = answer.problem(503, "not_ready");
    assert_eq!((&ready["database"], &ready["detail"]), (&json!(false), &json!("Postgres does not answer")));
    assert_eq!(get(&server, "healthz").await.expect(200).text(), "ok");
    // An `EventSource` that got anything but 200 would never come back.
    let mut put_off = driver.stream("ride_1", "").await.expect(200);
    assert_eq!(put_off.until_end().await, []);
    assert_eq!(put_off.retries.len(), 1);

    cluster.start_again().await;
    let again = eventually("the server works again", async || {
        let answer = rider.send_named("ride_1", "Are you there?", "m-2").await;
        answer.status.is_success().then(|| answer.json())
    })
    .await;
    assert_eq!(again["seq"], 3);
    // The stream that was open all the while goes on.
    assert_eq!(open.next_of("message:new").await.data, again);
    assert_eq!(rider.history("ride_1", "").await["messages"], json!([sent, again]));
}
