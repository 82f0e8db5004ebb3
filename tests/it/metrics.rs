//! `/metrics` in the Prometheus text format.

use std::collections::BTreeMap;

use crate::support::{Database, Server, eventually, lock_topic};

/// Returns all samples by name and labels.
pub(crate) async fn scrape(server: &Server) -> BTreeMap<String, f64> {
    let response = reqwest::get(format!("{}/metrics", server.base)).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    let text = response.text().await.unwrap();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_streams_and_events_are_counted() {
    let database = Database::create().await;
    let (server, other) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, driver) = server.open_ride("ride_1").await;
    let mut streams = [server.live_stream(&driver, "ride_1").await, other.live_stream(&driver, "ride_1").await];
    rider.send("ride_1", "Hello").await;
    rider.get("rides/ride_9").await.problem(404, "ride_not_found");
    for stream in &mut streams {
        stream.next_of_type("message:new").await;
    }
    // Metrics that Postgres provides are left out while their query takes too long.
    let samples = eventually("the metrics of Postgres are there", async || {
        let samples = scrape(&server).await;
        samples.contains_key("ridewire_notify_queue_usage_ratio").then_some(samples)
    })
    .await;
    let of = |name: &str| samples.get(name).copied().unwrap_or_else(|| panic!("{name}: {samples:#?}"));
    assert_eq!(of(r#"ridewire_connections{transport="sse"}"#), 1.0);
    assert_eq!(of(r#"ridewire_events_total{type="message:new"}"#), 1.0);
    assert_eq!(of(r#"ridewire_api_errors_total{code="ride_not_found"}"#), 1.0);
    let created = samples
        .iter()
        .filter(|(name, _)| name.starts_with("ridewire_http_requests_total{") && name.ends_with(r#"status="201"}"#));
    assert_eq!(created.map(|(_, count)| count).sum::<f64>(), 2.0);
    assert!(of("ridewire_batch_commands_count") >= 2.0 && of("ridewire_batch_duration_seconds_sum") > 0.0);
    assert!(of("ridewire_event_delivery_duration_seconds_count") >= 1.0);
    assert_eq!(of("ridewire_database_up"), 1.0);
    assert!((0.0..1.0).contains(&of("ridewire_notify_queue_usage_ratio")));
    assert!(of(r#"ridewire_pool_connections{state="idle"}"#) >= 1.0);
    assert!(of("process_open_fds") > 0.0 && of("ridewire_tokio_tasks") > 0.0);
    let requests = |route: &str, status| {
        of(&format!(r#"ridewire_http_request_duration_seconds_count{{method="{route},status="{status}"}}"#))
    };
    assert_eq!(requests(r#"POST",route="/api/v1/messages""#, 201), 1.0);
    assert_eq!(requests(r#"GET",route="/api/v1/rides/{rideId}""#, 404), 1.0);
    let of_streams =
        r#"ridewire_http_request_duration_seconds_count{method="GET",route="/api/v1/messages/rides/{rideId}/events""#;
    assert!(!samples.keys().any(|name| name.starts_with(of_streams)), "streams are not counted as requests");
    assert!(of("ridewire_pool_wait_seconds_count") >= 2.0);
    // The other replica has committed nothing. It has delivered the event that it was notified of.
    let samples = scrape(&other).await;
    assert!(!samples.contains_key(r#"ridewire_events_total{type="message:new"}"#));
    assert!(samples["ridewire_event_delivery_duration_seconds_count"] >= 1.0);
    eventually("the listener has received its probe", async || {
        let samples = scrape(&server).await;
        let is_listening = samples[r#"ridewire_listener_state{state="listening"}"#] == 1.0
            && samples[r#"ridewire_listener_state{state="deaf"}"#] == 0.0;
        (is_listening && samples["ridewire_listener_lag_seconds"] > 0.0).then_some(())
    })
    .await;
    drop(streams);
    eventually("ended streams are not counted", async || {
        (scrape(&server).await[r#"ridewire_connections{transport="sse"}"#] == 0.0).then_some(())
    })
    .await;
    let route = "/api/v1/messages/rides/{rideId}/events";
    let ended = format!(r#"ridewire_http_stream_duration_seconds_count{{route="{route}"}}"#);
    eventually("the duration of the ended stream is recorded", async || {
        (scrape(&server).await.get(&ended) == Some(&1.0)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lag_of_the_relay_and_of_retention_is_measured() {
    let database = Database::create().await;
    let settings = [
        ("RIDEWIRE_CHAT_GRACE", "100ms"),
        ("RIDEWIRE_LOG_RETENTION", "100ms"),
        ("RIDEWIRE_FEED_RETENTION", "100ms"),
        // Retention does not run during the test.
        ("RIDEWIRE_RETENTION_PERIOD", "10h"),
        ("RIDEWIRE_FALLBACK_POLL", "200ms"),
    ];
    let server = Server::start_with(&database, &settings).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let of = async |name: &str| scrape(&server).await.get(name).copied().filter(|value| !value.is_nan());
    eventually("all events are on the feed", async || {
        (of("ridewire_feed_relay_lag_seconds").await? == 0.0).then_some(())
    })
    .await;

    let mut client = database.client().await;
    let lock = lock_topic(&mut client, "feed").await;
    rider.send("ride_1", "Hello").await;
    eventually("the relay is late", async || (of("ridewire_feed_relay_lag_seconds").await? > 0.0).then_some(())).await;
    lock.rollback().await.unwrap();
    eventually("the relay is current", async || (of("ridewire_feed_relay_lag_seconds").await? == 0.0).then_some(()))
        .await;

    server.service().post_empty("rides/ride_1/cancel").await.expect(200);
    for data in ["ride_logs", "user_logs", "feed"] {
        let lag = format!(r#"ridewire_retention_lag_seconds{{data="{data}"}}"#);
        eventually(&lag, async || (of(&lag).await? > 0.0).then_some(())).await;
    }
    // The ride's messages are deleted after its log.
    assert_eq!(of(r#"ridewire_retention_lag_seconds{data="messages"}"#).await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_contain_no_ids_and_no_content() {
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
async fn the_admin_listener_alone_serves_metrics() {
    let database = Database::create().await;
    // The port is free now; another process is unlikely to bind it before the server does.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let admin = format!("127.0.0.1:{port}");
    let server = Server::start_with(&database, &[("RIDEWIRE_ADMIN_LISTEN", &admin)]).await;
    let status = async |base: &str, path: &str| reqwest::get(format!("{base}/{path}")).await.unwrap().status().as_u16();
    let admin_base = format!("http://{admin}");
    assert_eq!(status(&server.base, "metrics").await, 404);
    assert_eq!(status(&admin_base, "metrics").await, 200);
    for path in ["healthz", "readyz"] {
        assert_eq!((status(&server.base, path).await, status(&admin_base, path).await), (200, 200), "{path}");
    }
    // The admin listener does not serve the API.
    let url = format!("{admin_base}/api/v1/rides");
    let api = reqwest::Client::new().get(&url).bearer_auth(server.service().token).send().await.unwrap();
    assert_eq!(api.status(), 404);
    assert!(server.terminate().await.success());
}
