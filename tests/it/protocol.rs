//! Edge cases of HTTP and JSON, each decided from its RFC and from what clients do.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Answer, Database, Server, User};

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
        // By hand: clients of ours take a slash away.
        let url = format!("{}/api/v1/{path}", server.base);
        let request = reqwest::Client::new().get(&url).bearer_auth(&rider.token);
        rider.ask(request).await.problem(404, "not_found");
    }
    for path in ["readyz/", "/readyz", "metrics/", "/metrics", "healthz//", "openapi.yaml/"] {
        let url = format!("{}/{path}", server.base);
        Answer::of(url.clone(), reqwest::get(&url).await.unwrap()).await.problem(404, "not_found");
    }
    let url = format!("{}/api/v1/{of_message}/read/", server.base);
    rider.ask(reqwest::Client::new().post(&url).bearer_auth(&rider.token)).await.problem(404, "not_found");
    assert_eq!(rider.get("rides/ride_1").await.expect(200).json()["rideId"], "ride_1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_without_a_body_takes_none_but_an_empty_object() {
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
        send(r#"{"seq": 4, "a/b": 1}"#).await.wrong_field("/seq");
        send(r#"{"a/b": 1}"#).await.wrong_field("/a~1b");
        for wrong in ["null", "[]", "seq=4", "{", "1"] {
            send(wrong).await.wrong_field("");
        }
        assert_eq!(database.contents().await, before, "{path}");
        for fine in ["", " {} ", "{}"] {
            let status = send(fine).await.status;
            // What is deleted may be gone the second time.
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
        let problem = user.send_bytes(method, path, body.to_string()).await.wrong_field(pointer);
        problem["errors"][0]["detail"].as_str().unwrap().to_owned()
    };
    let put = |body| detail(&service, Method::PUT, "rides/ride_1", body, "/chatPolicy");
    assert_eq!(put(json!({ "chatPolicy": 5 })).await, "must be an object");
    let grace = json!({ "chatPolicy": { "opensAt": "accepted", "graceSeconds": "long" } });
    let said = detail(&service, Method::PUT, "rides/ride_1", grace, "/chatPolicy/graceSeconds").await;
    assert_eq!(said, "must be an object");
    let said = detail(&rider, Method::POST, "messages", json!({ "rideId": 1, "content": "x" }), "/rideId").await;
    assert_eq!(said, "must be a string");
    let said = detail(&rider, Method::POST, "messages", json!({ "ride": 1 }), "/ride").await;
    assert_eq!(said, "is unknown; the fields here are rideId, content, metadata, clientMessageId");
    let body = json!({ "lat": "52", "lng": 13 });
    assert_eq!(detail(&driver, Method::POST, "rides/ride_1/location", body, "/lat").await, "must be a number");
    let body = json!({ "typing": "yes" });
    let said = detail(&rider, Method::POST, "messages/rides/ride_1/typing", body, "/typing").await;
    assert_eq!(said, "must be a boolean");
    let body = json!({ "url": "https://receiver.invalid/", "types": "message:new" });
    assert_eq!(detail(&service, Method::POST, "webhooks", body, "/types").await, "must be an array");
    let body = json!({ "state": "disabled" });
    let webhook = service.post("webhooks", json!({ "url": "https://receiver.invalid/" })).await.expect(201).json();
    let path = format!("webhooks/{}", webhook["id"].as_str().unwrap());
    let said = detail(&service, Method::PATCH, &path, body, "/state").await;
    assert_eq!(said, "must be active, or paused to stop deliveries; only the server disables a webhook");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_heading_speed_or_accuracy_is_null() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    // As iOS reports it.
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
    // Nothing else that is negative says so.
    for name in ["heading", "speed", "accuracy"] {
        for wrong in [-0.5, -1.5, -2.0, -90.0] {
            let body = json!({ "lat": 52.5, "lng": 13.4, name: wrong });
            driver.post("rides/ride_1/location", body).await.wrong_field(&format!("/{name}"));
        }
    }
}
