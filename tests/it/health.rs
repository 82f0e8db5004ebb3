//! Start, probes and shutdown of a server.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::metrics::scrape;
use crate::support::{Cluster, Database, Response, Server, eventually};

async fn get(server: &Server, path: &str) -> Response {
    let url = format!("{}/{path}", server.base);
    Response::of(url.clone(), reqwest::get(&url).await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_started_server_is_healthy_and_ready() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    assert_eq!(get(&server, "healthz").await.expect(200).text(), "ok");
    let ready = eventually("the listener is connected", async || {
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
async fn without_notify_replicas_find_events_by_polling() {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_NOTIFY", "off"), ("RIDEWIRE_FALLBACK_POLL", "200ms")];
    let (one, two) = (Server::start_with(&database, &settings).await, Server::start_with(&database, &settings).await);
    assert_eq!(get(&one, "readyz").await.expect(200).json()["listen"], "off");
    let (rider, driver) = one.open_ride("ride_1").await;
    let mut stream = two.live_stream(&driver, "ride_1").await;
    let sent = rider.send("ride_1", "Hello").await;
    assert_eq!(stream.next_of_type("message:new").await.data, sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_ends_streams_and_polls_and_then_the_server() {
    let database = Database::create().await;
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let server = Server::start(&database).await;
        let other = Server::start(&database).await;
        let ride = format!("ride_{}", signal.as_str());
        let (rider, driver) = server.open_ride(&ride).await;
        let sent = rider.send(&ride, "Hello").await;
        let mut streams = [server.live_stream(&driver, &ride).await, server.live_stream(&rider, &ride).await];
        let polling = {
            let (user, ride) = (server.service(), ride.clone());
            tokio::spawn(async move { user.poll(&ride, "after=2&wait=55").await })
        };
        eventually("the poll waits", async || {
            (scrape(&server).await.get(r#"ridewire_connections{transport="poll"}"#) == Some(&1.0)).then_some(())
        })
        .await;
        let started = Instant::now();
        server.signal(signal);
        for stream in &mut streams {
            let before = stream.retries.len();
            let events = stream.until_end().await;
            assert_eq!(events.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), ["stream:closing"]);
            assert!(events[0].data["reason"].is_string());
            assert!(stream.retries.len() > before, "the stream ends with a retry time");
        }
        let polled = polling.await.unwrap();
        assert_eq!((&polled["events"], &polled["cursor"]), (&json!([]), &json!("2")));
        assert!(server.terminate().await.success());
        assert!(started.elapsed() < Duration::from_secs(55), "the server did not wait for the poll's timeout");
        // The stream resumes on another replica.
        rider.on(&other).send(&ride, "again").await;
        let mut stream = driver.on(&other).stream_from(&ride, "", Some(&streams[0].last_id)).await;
        assert_eq!(stream.next_sync().await["cursor"], sent["seq"].to_string());
        stream.find("message:new").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_postgres_is_reported_and_acknowledged_messages_survive_it() {
    let mut cluster = Cluster::dedicated().await;
    let database = cluster.database();
    let server = Server::start_with(&database, &[("RIDEWIRE_DATABASE_TIMEOUT", "2s")]).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let mut open = server.live_stream(&driver, "ride_1").await;
    let sent = eventually("the first message is stored", async || {
        let response = rider.send_with_id("ride_1", "Hello", "m-1").await;
        response.status.is_success().then(|| response.json())
    })
    .await;
    assert_eq!(open.next_of_type("message:new").await.data, sent);

    cluster.stop_immediate().await;
    let rejected = rider.send_with_id("ride_1", "Are you there?", "m-2").await;
    assert!(!rejected.header("retry-after").is_empty());
    rejected.problem(503, "unavailable");
    let rejected = rider.get("messages/rides/ride_1").await;
    assert!(!rejected.header("retry-after").is_empty());
    rejected.problem(503, "unavailable");
    let response = get(&server, "readyz").await;
    assert!(!response.header("retry-after").is_empty());
    let ready = response.problem(503, "not_ready");
    assert_eq!((&ready["database"], &ready["detail"]), (&json!(false), &json!("Postgres does not respond")));
    assert_eq!(get(&server, "healthz").await.expect(200).text(), "ok");
    // An `EventSource` does not reconnect after a status other than 200.
    let mut throttled = driver.stream("ride_1", "").await.expect(200);
    assert_eq!(throttled.until_end().await, []);
    assert_eq!(throttled.retries.len(), 1);

    cluster.start_again().await;
    let again = eventually("the server works again", async || {
        let response = rider.send_with_id("ride_1", "Are you there?", "m-2").await;
        response.status.is_success().then(|| response.json())
    })
    .await;
    assert_eq!(again["seq"], 3);
    // The open stream continues.
    assert_eq!(open.next_of_type("message:new").await.data, again);
    assert_eq!(rider.history("ride_1", "").await["messages"], json!([sent, again]));
}
