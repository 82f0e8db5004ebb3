//! Edge cases of HTTP and JSON, each decided from its RFC and from what clients do.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Database, Server};

/// The status of a raw HTTP/1.1 request, which asks for its connection's end.
async fn status_of(server: &Server, request: &str) -> u16 {
    let mut socket = TcpStream::connect(server.address()).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    socket.read_to_end(&mut response).await.unwrap();
    let text = String::from_utf8_lossy(&response).into_owned();
    text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{request}: {text}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_has_the_head_of_get_everywhere_and_no_effects() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let message = rider.send("ride_1", "Hello").await;
    let before = database.contents().await;
    let id = message["id"].as_str().unwrap();
    for path in [
        "rides",
        "rides/ride_1",
        "messages/rides/ride_1",
        "messages/rides/ride_1/unread-count",
        "messages/rides/ride_1/presence",
        "messages/unread-count",
        &format!("messages/{id}"),
        "messages/rides/ride_1/events",
        "events",
        // It waits for nothing.
        "messages/rides/ride_1/poll?after=2&wait=55",
        "poll?wait=55",
    ] {
        let answer = driver.ask(driver.request(Method::HEAD, path)).await.expect(200);
        assert!(answer.body.is_empty(), "{path}");
        let kind = if path.contains("events") { "text/event-stream" } else { "application/json" };
        assert_eq!(answer.header("content-type"), kind, "{path}");
    }
    let etag = driver.get("messages/rides/ride_1").await.header("etag").to_owned();
    let answer = driver.ask(driver.request(Method::HEAD, "messages/rides/ride_1")).await;
    assert_eq!(answer.header("etag"), etag);
    let answer = driver.ask(driver.request(Method::HEAD, "rides/ride_9")).await.expect(404);
    assert!(answer.body.is_empty());
    assert_eq!(database.contents().await, before, "no delivery is acknowledged");
    let allowed = driver.post_nothing("rides/ride_1").await.expect(405).header("allow").to_owned();
    assert!(allowed.contains("GET") && allowed.contains("HEAD"), "{allowed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_resumed_from_the_parameter_of_polyfills_unless_there_is_the_header() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    rider.send("ride_1", "One").await;
    rider.send("ride_1", "Two").await;
    let mut stream = driver.stream("ride_1", "lastEventId=2&after=0").await;
    assert_eq!(stream.next_sync().await["resumed"], true);
    assert_eq!(stream.next_event().await.data["content"], "Two");
    let mut stream = driver.stream_from("ride_1", "lastEventId=2", Some("1")).await;
    stream.next_sync().await;
    assert_eq!(stream.next_event().await.data["content"], "One");
    driver.get("messages/rides/ride_1/events?lastEventId=x").await.wrong_field("lastEventId");
    // A malformed one is rejected also where the header decides.
    let request =
        driver.request(Method::GET, "messages/rides/ride_1/events?lastEventId=x").header("last-event-id", "1");
    driver.ask(request).await.wrong_field("lastEventId");
    let mut stream = driver.stream_all("lastEventId=0", None).await;
    assert_eq!(stream.next_sync().await["resumed"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_parameter_that_an_operation_does_not_have_is_named_and_rejected() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let problem = rider.get("messages/rides/ride_1?limt=5").await.wrong_field("limt");
    assert!(problem["errors"][0]["detail"].as_str().unwrap().contains("limit"), "{problem}");
    rider.get("messages/rides/ride_1/poll?wait=0&afer=1").await.wrong_field("afer");
    rider.get("messages/rides/ride_1/events?afer=1").await.wrong_field("afer");
    rider.put("rides/ride_1?dry=1", json!({})).await.wrong_field("dry");
    rider.get("rides/ride_1?ticket=x").await.wrong_field("ticket");
    // Some libraries add it so that no cache answers.
    rider.get("messages/rides/ride_1?limit=5&_=1732658400").await.expect(200);
    // Whoever may not be here learns nothing of what is.
    rider.clone().with_token("").get("rides/ride_1?x=1").await.expect(401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_has_one_host_and_one_authorization() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let token = &rider.token;
    let get = |version: &str, headers: &str| {
        format!("GET /api/v1/rides/ride_1 {version}\r\n{headers}Connection: close\r\n\r\n")
    };
    let one = format!("Host: example.com\r\nAuthorization: Bearer {token}\r\n");
    for (headers, status) in [
        (one.clone(), 200),
        (format!("Authorization: Bearer {token}\r\n"), 400),
        (format!("Host: a.example\r\n{one}"), 400),
        (format!("Host: a b\r\nAuthorization: Bearer {token}\r\n"), 400),
        (format!("{one}Authorization: Bearer {token}\r\n"), 400),
    ] {
        assert_eq!(status_of(&server, &get("HTTP/1.1", &headers)).await, status, "{headers}");
    }
    // HTTP/1.0 had none.
    assert_eq!(status_of(&server, &get("HTTP/1.0", &format!("Authorization: Bearer {token}\r\n"))).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_counts_beside_the_credentials_that_a_proxy_has_added() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let ticket =
        rider.post("stream-tickets", json!({})).await.expect(201).json()["ticket"].as_str().unwrap().to_owned();
    let bare = rider.clone().with_token("");
    let poll = |query: &str| {
        bare.request(Method::GET, &format!("messages/rides/ride_1/poll{query}")).header("authorization", "Basic YTpi")
    };
    bare.ask(poll(&format!("?ticket={ticket}"))).await.expect(200);
    bare.ask(poll("")).await.expect(401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apps_in_a_web_view_and_tracing_libraries_pass_cors() {
    let database = Database::create().await;
    let server = Server::with(&database, &[("RIDEWIRE_CORS_ORIGINS", "capacitor://localhost")]).await;
    let request = reqwest::Client::new()
        .request(Method::OPTIONS, format!("{}/api/v1/messages", server.base))
        .header("origin", "capacitor://localhost")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "traceparent,tracestate,baggage");
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["access-control-allow-origin"], "capacitor://localhost");
    let allowed = response.headers()["access-control-allow-headers"].to_str().unwrap().to_owned();
    assert!(["traceparent", "tracestate", "baggage"].iter().all(|name| allowed.contains(name)), "{allowed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_not_come_back_as_it_was_sent_is_rejected() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    // No client can send these in a path.
    for dots in [".", ".."] {
        server.service().put("rides/ride_2", json!({ "riderId": dots })).await.wrong_field("/riderId");
        rider.post("messages", json!({ "rideId": dots, "content": "Hello" })).await.wrong_field("/rideId");
    }
    let status = json!({ "status": { "arrived": null } });
    driver.post("rides/ride_1/status", status).await.wrong_field("/status");
    let send = async |metadata: &str, name: &str| {
        let body = format!(r#"{{"rideId":"ride_1","content":"x","clientMessageId":"{name}","metadata":{metadata}}}"#);
        rider.send_bytes(Method::POST, "messages", body).await
    };
    send(r#"{"n":18446744073709551616}"#, "big").await.wrong_field("/metadata");
    let kept: Value = send(r#"{"n":18446744073709551615}"#, "big").await.expect(201).json();
    assert_eq!(kept["metadata"]["n"], 18_446_744_073_709_551_615_u64);
    // A retry has the bytes of what it repeats, so a number that is written in another way is another content.
    send(r#"{"n":13}"#, "number").await.expect(201);
    send(r#"{ "n": 13 }"#, "number").await.expect(200);
    send(r#"{"n":13.0}"#, "number").await.problem(409, "idempotency_conflict");
    // White space has a size, too.
    let long = format!("{}x", "\n".repeat(16 * 1024));
    rider.post("messages", json!({ "rideId": "ride_1", "content": long })).await.wrong_field("/content");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_heading_or_speed_is_null() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    // As iOS reports it.
    let body = json!({ "lat": 52.5, "lng": 13.4, "heading": -1, "speed": -1, "accuracy": 5 });
    driver.post("rides/ride_1/location", body).await.expect(202);
    let location = rider.get("rides/ride_1/location").await.expect(200).json();
    assert_eq!((&location["heading"], &location["speed"]), (&Value::Null, &Value::Null), "{location}");
    assert_eq!(location["accuracy"], 5.0);
}
