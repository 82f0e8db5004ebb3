//! Edge cases of HTTP and JSON. Each expected result follows from its RFC and from the behavior of clients.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Database, Response, Server, User};

/// Sends a raw HTTP/1.1 request that closes its connection, and returns the status.
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
        // The poll does not wait.
        "messages/rides/ride_1/poll?after=2&wait=55",
        "poll?wait=55",
    ] {
        let response = driver.execute(driver.request(Method::HEAD, path)).await.expect(200);
        assert!(response.body.is_empty(), "{path}");
        let kind = if path.contains("events") { "text/event-stream" } else { "application/json" };
        assert_eq!(response.header("content-type"), kind, "{path}");
    }
    let etag = driver.get("messages/rides/ride_1").await.header("etag").to_owned();
    let response = driver.execute(driver.request(Method::HEAD, "messages/rides/ride_1")).await;
    assert_eq!(response.header("etag"), etag);
    let response = driver.execute(driver.request(Method::HEAD, "rides/ride_9")).await.expect(404);
    assert!(response.body.is_empty());
    assert_eq!(database.contents().await, before, "no delivery is acknowledged");
    let allowed = driver.post_empty("rides/ride_1").await.expect(405).header("allow").to_owned();
    assert!(allowed.contains("GET") && allowed.contains("HEAD"), "{allowed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_resumes_from_the_polyfill_parameter_unless_the_header_is_present() {
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
    driver.get("messages/rides/ride_1/events?lastEventId=x").await.invalid_field("lastEventId");
    // A malformed parameter is rejected also if the header takes precedence.
    let request =
        driver.request(Method::GET, "messages/rides/ride_1/events?lastEventId=x").header("last-event-id", "1");
    driver.execute(request).await.invalid_field("lastEventId");
    let mut stream = driver.stream_all("lastEventId=0", None).await;
    assert_eq!(stream.next_sync().await["resumed"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_parameter_that_an_operation_does_not_have_is_named_and_rejected() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let problem = rider.get("messages/rides/ride_1?limt=5").await.invalid_field("limt");
    assert!(problem["errors"][0]["detail"].as_str().unwrap().contains("limit"), "{problem}");
    rider.get("messages/rides/ride_1/poll?wait=0&afer=1").await.invalid_field("afer");
    rider.get("messages/rides/ride_1/events?afer=1").await.invalid_field("afer");
    rider.put("rides/ride_1?dry=1", json!({})).await.invalid_field("dry");
    rider.get("rides/ride_1?ticket=x").await.invalid_field("ticket");
    // Some libraries add a random parameter to bypass caches.
    rider.get("messages/rides/ride_1?limit=5&_=1732658400").await.expect(200);
    // A caller without a valid token gets 401 before the parameters are checked.
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
    // HTTP/1.0 does not require `Host`.
    assert_eq!(status_of(&server, &get("HTTP/1.0", &format!("Authorization: Bearer {token}\r\n"))).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_is_valid_beside_credentials_added_by_a_proxy() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let ticket =
        rider.post("stream-tickets", json!({})).await.expect(201).json()["ticket"].as_str().unwrap().to_owned();
    let bare = rider.clone().with_token("");
    let poll = |query: &str| {
        bare.request(Method::GET, &format!("messages/rides/ride_1/poll{query}")).header("authorization", "Basic YTpi")
    };
    bare.execute(poll(&format!("?ticket={ticket}"))).await.expect(200);
    bare.execute(poll("")).await.expect(401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apps_in_a_web_view_and_tracing_libraries_pass_cors() {
    let database = Database::create().await;
    let server = Server::start_with(&database, &[("RIDEWIRE_CORS_ORIGINS", "capacitor://localhost")]).await;
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
async fn values_that_would_not_round_trip_are_rejected() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    // Clients cannot send these ids in a path.
    for dots in [".", ".."] {
        server.service().put("rides/ride_2", json!({ "riderId": dots })).await.invalid_field("/riderId");
        rider.post("messages", json!({ "rideId": dots, "content": "Hello" })).await.invalid_field("/rideId");
    }
    let status = json!({ "status": { "arrived": null } });
    driver.post("rides/ride_1/status", status).await.invalid_field("/status");
    let send = async |metadata: &str, name: &str| {
        let body = format!(r#"{{"rideId":"ride_1","content":"x","clientMessageId":"{name}","metadata":{metadata}}}"#);
        rider.send_bytes(Method::POST, "messages", body).await
    };
    send(r#"{"n":18446744073709551616}"#, "big").await.invalid_field("/metadata");
    let kept: Value = send(r#"{"n":18446744073709551615}"#, "big").await.expect(201).json();
    assert_eq!(kept["metadata"]["n"], 18_446_744_073_709_551_615_u64);
    // A retry has the same bytes, so a number in another notation is different content.
    send(r#"{"n":13}"#, "number").await.expect(201);
    send(r#"{ "n": 13 }"#, "number").await.expect(200);
    send(r#"{"n":13.0}"#, "number").await.problem(409, "idempotency_conflict");
    // White space counts toward the size.
    let long = format!("{}x", "\n".repeat(16 * 1024));
    rider.post("messages", json!({ "rideId": "ride_1", "content": long })).await.invalid_field("/content");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_with_an_empty_segment_is_unknown() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let sent = rider.send("ride_1", "Hello").await;
    let of_message = format!("messages/{}", sent["id"].as_str().unwrap());
    for path in [
        "rides/",
        "rides//",
        "/rides",
        "rides//ride_1",
        "rides/ride_1/",
        "messages//rides/ride_1",
        "messages/rides/ride_1/",
        "messages/rides/ride_1/poll/?after=0&wait=0",
        "messages/rides/ride_1/events/",
        &format!("{of_message}/"),
        "",
    ] {
        // As raw bytes, because HTTP clients normalize the path.
        let url = format!("{}/api/v1/{path}", server.base);
        let request = reqwest::Client::new().get(&url).bearer_auth(&rider.token);
        rider.execute(request).await.problem(404, "not_found");
    }
    for path in ["readyz/", "/readyz", "metrics/", "/metrics", "healthz//", "openapi.yaml/"] {
        let url = format!("{}/{path}", server.base);
        Response::of(url.clone(), reqwest::get(&url).await.unwrap()).await.problem(404, "not_found");
    }
    let url = format!("{}/api/v1/{of_message}/read/", server.base);
    rider.execute(reqwest::Client::new().post(&url).bearer_auth(&rider.token)).await.problem(404, "not_found");
    assert_eq!(rider.get("rides/ride_1").await.expect(200).json()["rideId"], "ride_1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_without_a_body_accepts_only_an_empty_object() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let service = server.service();
    service.put_ride("ride_2", "rider_1", None).await.expect(201);
    let webhook = service.post("webhooks", json!({ "url": "https://receiver.invalid/" })).await.expect(201).json();
    let webhook = format!("webhooks/{}", webhook["id"].as_str().unwrap());
    let sent = rider.send("ride_1", "Hello").await;
    let message = format!("messages/{}", sent["id"].as_str().unwrap());
    let without = [
        (&driver, Method::POST, format!("{message}/delivered")),
        (&driver, Method::POST, format!("{message}/read")),
        (&driver, Method::PUT, format!("{message}/reactions/%F0%9F%91%8D")),
        (&driver, Method::DELETE, format!("{message}/reactions/%F0%9F%91%8D")),
        (&driver, Method::POST, "rides/ride_2/accept".to_owned()),
        (&rider, Method::DELETE, message.clone()),
        (&service, Method::POST, format!("{webhook}/secret")),
        (&service, Method::DELETE, webhook.clone()),
    ];
    for (user, method, path) in &without {
        let before = database.contents().await;
        let send = async |body: &'static str| user.send_bytes(method.clone(), path, body).await;
        send(r#"{"seq": 4, "a/b": 1}"#).await.invalid_field("/seq");
        send(r#"{"a/b": 1}"#).await.invalid_field("/a~1b");
        for wrong in ["null", "[]", "seq=4", "{", "1"] {
            send(wrong).await.invalid_field("");
        }
        assert_eq!(database.contents().await, before, "{path}");
        for fine in ["", " {} ", "{}"] {
            let status = send(fine).await.status;
            // A deleted resource may be missing the second time.
            assert!(status.is_success() || (*method == Method::DELETE && status == 404), "{path} {fine:?}: {status}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn details_are_in_the_terms_of_the_api() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let service = server.service();
    let detail = async |user: &User, method: Method, path: &str, body: Value, pointer: &str| -> String {
        let problem = user.send_bytes(method, path, body.to_string()).await.invalid_field(pointer);
        problem["errors"][0]["detail"].as_str().unwrap().to_owned()
    };
    let put = |body| detail(&service, Method::PUT, "rides/ride_1", body, "/chatPolicy");
    assert_eq!(put(json!({ "chatPolicy": 5 })).await, "must be an object");
    let grace = json!({ "chatPolicy": { "opensAt": "accepted", "graceSeconds": "long" } });
    let message = detail(&service, Method::PUT, "rides/ride_1", grace, "/chatPolicy/graceSeconds").await;
    assert_eq!(message, "must be an object");
    let message = detail(&rider, Method::POST, "messages", json!({ "rideId": 1, "content": "x" }), "/rideId").await;
    assert_eq!(message, "must be a string");
    let message = detail(&rider, Method::POST, "messages", json!({ "ride": 1 }), "/ride").await;
    assert_eq!(message, "is unknown; the fields here are rideId, content, metadata, clientMessageId");
    let body = json!({ "lat": "52", "lng": 13 });
    assert_eq!(detail(&driver, Method::POST, "rides/ride_1/location", body, "/lat").await, "must be a number");
    let body = json!({ "typing": "yes" });
    let message = detail(&rider, Method::POST, "messages/rides/ride_1/typing", body, "/typing").await;
    assert_eq!(message, "must be a boolean");
    let body = json!({ "url": "https://receiver.invalid/", "types": "message:new" });
    assert_eq!(detail(&service, Method::POST, "webhooks", body, "/types").await, "must be an array");
    let body = json!({ "state": "disabled" });
    let webhook = service.post("webhooks", json!({ "url": "https://receiver.invalid/" })).await.expect(201).json();
    let path = format!("webhooks/{}", webhook["id"].as_str().unwrap());
    let message = detail(&service, Method::PATCH, &path, body, "/state").await;
    assert_eq!(message, "must be active, or paused to stop deliveries; only the server disables a webhook");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_heading_speed_or_accuracy_is_null() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    // As iOS reports unknown values.
    let body = json!({ "lat": 52.5, "lng": 13.4, "heading": -1, "speed": -1.0, "accuracy": 5 });
    driver.post("rides/ride_1/location", body).await.expect(202);
    let location = rider.get("rides/ride_1/location").await.expect(200).json();
    assert_eq!((&location["heading"], &location["speed"]), (&Value::Null, &Value::Null), "{location}");
    assert_eq!(location["accuracy"], 5.0);
    let body = json!({ "lat": 52.5, "lng": 13.4, "heading": 0, "speed": 0, "accuracy": -1 });
    driver.post("rides/ride_1/location", body).await.expect(202);
    let location = rider.get("rides/ride_1/location").await.expect(200).json();
    let known = [&location["heading"], &location["speed"], &location["accuracy"]];
    assert_eq!(known, [&json!(0.0), &json!(0.0), &Value::Null], "{location}");
    // Other negative values are rejected.
    for name in ["heading", "speed", "accuracy"] {
        for wrong in [-0.5, -1.5, -2.0, -90.0] {
            let body = json!({ "lat": 52.5, "lng": 13.4, name: wrong });
            driver.post("rides/ride_1/location", body).await.invalid_field(&format!("/{name}"));
        }
    }
}
