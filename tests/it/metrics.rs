//! `/metrics`, as Prometheus reads it.

use std::collections::BTreeMap;

use crate::support::{Database, Server, eventually, lock_topic};

/// All samples, by name and labels as they stand there.
pub(crate) async fn scrape(server: &Server) -> BTreeMap<String, f64> {
    let answer = reqwest::get(format!("{}/metrics", server.base)).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    let text = answer.text().await.unwrap();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_is_counted() {
    let database = Database::create().await;
    let (server, other) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, driver) = server.open_ride("ride_1").await;
    let mut streams = [server.live(&driver, "ride_1").await, other.live(&driver, "ride_1").await];
    rider.send("ride_1", "Hello").await;
    rider.get("rides/ride_9").await.problem(404, "ride_not_found");
    for stream in &mut streams {
        stream.next_of("message:new").await;
    }
    // What Postgres says of itself is left out where that takes long.
    let samples = eventually("Postgres is asked", async || {
        let samples = scrape(&server).await;
        samples.contains_key("ridewire_notify_queue_usage").then_some(samples)
    })
    .await;
    let of = |name: &str| samples.get(name).copied().unwrap_or_else(|| panic!("{name}: {samples:#?}"));
    assert_eq!(of(r#"ridewire_open{transport="sse"}"#), 1.0);
    assert_eq!(of(r#"ridewire_events_total{type="message:new"}"#), 1.0);
    assert_eq!(of(r#"ridewire_refusals_total{code="ride_not_found"}"#), 1.0);
    assert_eq!(of(r#"ridewire_answers_total{status="201"}"#), 2.0);
    assert!(of("ridewire_batch_commands_count") >= 2.0 && of("ridewire_commit_seconds_sum") > 0.0);
    assert!(of("ridewire_commit_to_socket_seconds_count") >= 1.0);
    assert_eq!(of("ridewire_database_up"), 1.0);
    assert!((0.0..1.0).contains(&of("ridewire_notify_queue_usage")));
    assert!(of(r#"ridewire_pool_connections{state="idle"}"#) >= 1.0);
    assert!(of("process_open_fds") > 0.0 && of("ridewire_tasks") > 0.0);
    let requests = |route: &str, status| {
        of(&format!(r#"ridewire_http_request_duration_seconds_count{{method="{route},status="{status}"}}"#))
    };
    assert_eq!(requests(r#"POST",route="/api/v1/messages""#, 201), 1.0);
    assert_eq!(requests(r#"GET",route="/api/v1/rides/{rideId}""#, 404), 1.0);
    let of_streams =
        r#"ridewire_http_request_duration_seconds_count{method="GET",route="/api/v1/messages/rides/{rideId}/events""#;
    assert!(!samples.keys().any(|name| name.starts_with(of_streams)), "streams are not among them");
    assert!(of("ridewire_pool_wait_seconds_count") >= 2.0);
    // The other one has committed nothing, and has handed out what it heard of.
    let samples = scrape(&other).await;
    assert!(!samples.contains_key(r#"ridewire_events_total{type="message:new"}"#));
    assert!(samples["ridewire_commit_to_socket_seconds_count"] >= 1.0);
    eventually("the listener hears itself", async || {
        let samples = scrape(&server).await;
        let hears = samples[r#"ridewire_listen{state="listening"}"#] == 1.0
            && samples[r#"ridewire_listen{state="deaf"}"#] == 0.0;
        (hears && samples["ridewire_listen_lag_seconds"] > 0.0).then_some(())
    })
    .await;
    drop(streams);
    eventually("streams that have ended are not counted", async || {
        (scrape(&server).await[r#"ridewire_open{transport="sse"}"#] == 0.0).then_some(())
    })
    .await;
    let route = "/api/v1/messages/rides/{rideId}/events";
    let ended = format!(r#"ridewire_http_stream_duration_seconds_count{{route="{route}"}}"#);
    eventually("they have their duration then", async || {
        (scrape(&server).await.get(&ended) == Some(&1.0)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_late_is_measured() {
    let database = Database::create().await;
    let settings = [
        ("RIDEWIRE_CHAT_GRACE", "100ms"),
        ("RIDEWIRE_LOG_RETENTION", "100ms"),
        ("RIDEWIRE_FEED_RETENTION", "100ms"),
        // Nothing is deleted here.
        ("RIDEWIRE_RETENTION_PERIOD", "10h"),
        ("RIDEWIRE_FALLBACK_POLL", "200ms"),
    ];
    let server = Server::with(&database, &settings).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let of = async |name: &str| scrape(&server).await.get(name).copied().filter(|value| !value.is_nan());
    eventually("all is on the feed", async || (of("ridewire_feed_relay_lag_seconds").await? == 0.0).then_some(()))
        .await;

    let mut client = database.client().await;
    let lock = lock_topic(&mut client, "feed").await;
    rider.send("ride_1", "Hello").await;
    eventually("the relay is late", async || (of("ridewire_feed_relay_lag_seconds").await? > 0.0).then_some(())).await;
    lock.rollback().await.unwrap();
    eventually("it is not", async || (of("ridewire_feed_relay_lag_seconds").await? == 0.0).then_some(())).await;

    server.service().post_nothing("rides/ride_1/cancel").await.expect(200);
    for data in ["ride_logs", "user_logs", "feed"] {
        let lag = format!(r#"ridewire_retention_lag_seconds{{data="{data}"}}"#);
        eventually(&lag, async || (of(&lag).await? > 0.0).then_some(())).await;
    }
    // The messages of the ride go after its log.
    assert_eq!(of(r#"ridewire_retention_lag_seconds{data="messages"}"#).await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_anybody_is_in_the_metrics() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_secret").await;
    rider.send("ride_secret", "a secret").await;
    rider.clone().with_token("nonsense.secret.token").get("rides/ride_secret").await.problem(401, "token_malformed");
    let text = reqwest::get(format!("{}/metrics", server.base)).await.unwrap().text().await.unwrap();
    for secret in ["secret", "rider_", "driver_", "nonsense"] {
        assert!(!text.contains(secret), "{secret} is in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_an_address_for_operators_the_metrics_are_there_and_nowhere_else() {
    let database = Database::create().await;
    // Free now; nobody else takes ports so fast.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let admin = format!("127.0.0.1:{port}");
    let server = Server::with(&database, &[("RIDEWIRE_ADMIN_LISTEN", &admin)]).await;
    let status = async |base: &str, path: &str| reqwest::get(format!("{base}/{path}")).await.unwrap().status().as_u16();
    let for_operators = format!("http://{admin}");
    assert_eq!(status(&server.base, "metrics").await, 404);
    assert_eq!(status(&for_operators, "metrics").await, 200);
    for path in ["healthz", "readyz"] {
        assert_eq!((status(&server.base, path).await, status(&for_operators, path).await), (200, 200), "{path}");
    }
    // The interface is not an operator's.
    let interface = format!("{for_operators}/api/v1/rides");
    let asked = reqwest::Client::new().get(&interface).bearer_auth(server.service().token).send().await.unwrap();
    assert_eq!(asked.status(), 404);
    assert!(server.terminate().await.success());
}
