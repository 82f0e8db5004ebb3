//! Invalid requests: each gets a specific error and changes nothing.

use bytes::Bytes;
use reqwest::{Body, Method};
use serde_json::{Value, json};

use crate::support::{Database, Response, Server, User};

/// A server with a ride and a message, and the contents of the database before the test.
struct Fixture {
    // Declared first, so that the server is dropped before its database.
    server: Server,
    database: Database,
    rider: User,
    message: Value,
    before: String,
}

impl Fixture {
    async fn new() -> Self {
        let database = Database::create().await;
        let server = Server::start(&database).await;
        let (rider, _) = server.open_ride("ride_1").await;
        let message = rider.send("ride_1", "Hello").await;
        let before = database.contents().await;
        Self { server, database, rider, message, before }
    }

    /// Asserts that the rejected requests have changed nothing and that the server works.
    async fn assert_unchanged(&self) {
        assert_eq!(self.database.contents().await, self.before);
        assert_eq!(self.rider.send("ride_1", "after the rejections").await["seq"], 3);
    }

    async fn send_bytes(&self, body: impl Into<Body>) -> Response {
        self.rider.send_bytes(Method::POST, "messages", body).await
    }

    fn path(&self) -> String {
        format!("messages/{}", self.message["id"].as_str().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_not_json_is_rejected() {
    let fixture = Fixture::new().await;
    let bodies: &[&[u8]] = &[
        b"",
        b" ",
        b"Hello",
        b"rideId=ride_1&content=Hello",
        b"{\"rideId\": \"ride_1\", \"content\": \"Hello\"",
        b"{\"rideId\": \"ride_1\", \"content\": \"Hello\"} {}",
        b"{\"rideId\": \"ride_1\", \"content\": 'Hello'}",
        b"{\"rideId\": \"ride_1\", \"content\": \"a\nb\"}",
        b"[{\"rideId\": \"ride_1\", \"content\": \"Hello\"}]",
        b"[null, null]",
        b"[\"ride_1\", \"Hello\", null, null]",
        b"\"Hello\"",
        b"null",
        b"\xff\xfe{\x00}\x00",
        b"{\"rideId\": \"ride_1\", \"content\": \"bad \xff utf-8\"}",
        b"{\"rideId\": \"ride_1\", \"content\": \"overlong \xc0\xaf\"}",
        b"{\"rideId\": \"ride_1\", \"content\": \"surrogate \xed\xa0\x80\"}",
        br#"{"rideId": "ride_1", "content": "lone \ud800"}"#,
        br#"{"rideId": "ride_1", "content": "lone \udc00 low"}"#,
        br#"{"rideId": "ride_1", "content": "swapped \udc00\ud800"}"#,
        br#"{"rideId": "ride_1", "content": "Hello", "metadata": {"a": "\ud800"}}"#,
        br#"{"rideId": "ride_1", "content": "Hello", "content": "twice"}"#,
        br#"{"rideId": "ride_1", "content": "Hello", "metadata": {"a": 1e999}}"#,
    ];
    for body in bodies {
        let shown = String::from_utf8_lossy(body).into_owned();
        let response = fixture.send_bytes(body.to_vec()).await;
        assert_eq!(response.status, 400, "{shown}: {}", response.text());
        response.problem(400, "invalid_request");
        fixture.rider.send_bytes(Method::PATCH, &fixture.path(), body.to_vec()).await.problem(400, "invalid_request");
        let service = fixture.server.service();
        service.send_bytes(Method::PUT, "rides/ride_2", body.to_vec()).await.problem(400, "invalid_request");
    }
    fixture.assert_unchanged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_invalid_field_is_named() {
    let fixture = Fixture::new().await;
    let long_id = "x".repeat(65);
    let cases = [
        (json!({}), vec!["/rideId", "/content"]),
        (json!({ "rideId": "ride_1" }), vec!["/content"]),
        (json!({ "content": "Hello" }), vec!["/rideId"]),
        (json!({ "rideId": null, "content": null }), vec!["/rideId", "/content"]),
        (json!({ "rideId": "ride_1", "content": "Hello", "extra": 1 }), vec!["/extra"]),
        (json!({ "rideId": "ride_1", "content": "Hello", "ride_id": "ride_1" }), vec!["/ride_id"]),
        (json!({ "rideId": 1, "content": "Hello" }), vec!["/rideId"]),
        (json!({ "rideId": "ride_1", "content": 5 }), vec!["/content"]),
        (json!({ "rideId": "ride_1", "content": ["Hello"] }), vec!["/content"]),
        (json!({ "rideId": "ride_1", "content": { "text": "Hello" } }), vec!["/content"]),
        (json!({ "rideId": "ride_1", "content": "" }), vec!["/content"]),
        (json!({ "rideId": "ride_1", "content": " \t\r\n\u{a0}\u{3000}" }), vec!["/content"]),
        (json!({ "rideId": "ride_1", "content": "é".repeat(4_001) }), vec!["/content"]),
        (json!({ "rideId": "ride_1", "content": "a\u{0}b" }), vec!["/content"]),
        (json!({ "rideId": "ride 1", "content": "" }), vec!["/rideId", "/content"]),
        (json!({ "rideId": "", "content": "Hello" }), vec!["/rideId"]),
        (json!({ "rideId": "ride/1", "content": "Hello" }), vec!["/rideId"]),
        (json!({ "rideId": "ridé", "content": "Hello" }), vec!["/rideId"]),
        (json!({ "rideId": "ride_1\n", "content": "Hello" }), vec!["/rideId"]),
        (json!({ "rideId": long_id, "content": "Hello" }), vec!["/rideId"]),
        (json!({ "rideId": "ride_1", "content": "Hello", "metadata": "text" }), vec!["/metadata"]),
        (json!({ "rideId": "ride_1", "content": "Hello", "metadata": [1] }), vec!["/metadata"]),
        (json!({ "rideId": "ride_1", "content": "Hello", "metadata": { "a": "b\u{0}" } }), vec!["/metadata"]),
        (json!({ "rideId": "ride_1", "content": "Hello", "metadata": { "a\u{0}": 1 } }), vec!["/metadata"]),
        (json!({ "rideId": "ride_1", "content": "Hello", "metadata": { "a": [{ "b": "\u{0}" }] } }), vec!["/metadata"]),
        (json!({ "rideId": "ride_1", "content": "Hello", "metadata": { "a": "x".repeat(8_192) } }), vec!["/metadata"]),
        (json!({ "rideId": "ride_1", "content": "Hello", "metadata": nested(33) }), vec!["/metadata"]),
        (json!({ "rideId": "ride_1", "content": "Hello", "clientMessageId": 7 }), vec!["/clientMessageId"]),
        (json!({ "rideId": "ride_1", "content": "Hello", "clientMessageId": "" }), vec!["/clientMessageId"]),
        (json!({ "rideId": "ride_1", "content": "Hello", "clientMessageId": "a\u{0}" }), vec!["/clientMessageId"]),
    ];
    for (body, pointers) in cases {
        let shown = body.to_string().chars().take(80).collect::<String>();
        let problem = fixture.rider.post("messages", body).await.invalid_field(pointers[0]);
        let errors = problem["errors"].as_array().unwrap();
        let named: Vec<_> = errors.iter().map(|error| error["pointer"].as_str().unwrap()).collect();
        assert_eq!(named, pointers, "{shown}");
    }
    let service = fixture.server.service();
    let rides = [
        (json!({}), "/riderId"),
        (json!({ "riderId": "a b" }), "/riderId"),
        (json!({ "riderId": "rider_1", "driverId": "" }), "/driverId"),
        (json!({ "riderId": "rider_1", "status": "finished" }), "/status"),
        (json!({ "riderId": "rider_1", "drivers": [] }), "/drivers"),
    ];
    for (body, pointer) in rides {
        service.put("rides/ride_2", body).await.invalid_field(pointer);
    }
    service.post("rides/ride_1/status", json!({})).await.invalid_field("/status");
    service.post("rides/ride_1/status", json!({ "status": "Arrived" })).await.invalid_field("/status");
    fixture.rider.post("rides/ride_1/cancel", json!({ "why": "x" })).await.invalid_field("/why");
    fixture.assert_unchanged().await;
}

/// Returns an object with this nesting depth.
fn nested(levels: usize) -> Value {
    (1..levels).fold(json!({}), |inner, _| json!({ "a": inner }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_at_their_limits_are_accepted() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let ride = "r.-_".repeat(16);
    let (rider, _) = server.open_ride(&ride).await;
    for content in ["🚕".repeat(4_000), format!("{}x{}", " ".repeat(3_000), "\n".repeat(3_000)), "x".into()] {
        let sent = rider.send(&ride, &content).await;
        assert_eq!(sent["content"], content);
    }
    for metadata in [json!({}), nested(32), json!({ "k": "x".repeat(8_192 - 8) })] {
        let body = json!({ "rideId": ride, "content": "x", "metadata": metadata });
        assert_eq!(rider.post("messages", body).await.expect(201).json()["metadata"], metadata);
    }
    let body = json!({ "rideId": ride, "content": "x", "metadata": null, "clientMessageId": null });
    assert_eq!(rider.post("messages", body).await.expect(201).json()["metadata"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_too_large_or_too_deep_is_rejected() {
    let fixture = Fixture::new().await;
    let large = |size: usize| {
        let body = json!({ "rideId": "ride_1", "content": "x", "metadata": { "a": "x".repeat(size) } });
        body.to_string()
    };
    let chunks = |text: String| {
        let parts: Vec<Bytes> = text.as_bytes().chunks(1_000).map(Bytes::copy_from_slice).collect();
        Body::wrap_stream(futures_util::stream::iter(parts.into_iter().map(Ok::<_, std::io::Error>)))
    };
    for size in [64 * 1_024, 70_000, 1_000_000] {
        fixture.send_bytes(large(size)).await.problem(413, "body_too_large");
    }
    fixture.send_bytes(chunks(large(70_000))).await.problem(413, "body_too_large");
    fixture.send_bytes(large(60_000)).await.invalid_field("/metadata");
    fixture.send_bytes(chunks(large(60_000))).await.invalid_field("/metadata");
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}1{}", open.repeat(5_000), close.repeat(5_000));
        fixture.send_bytes(deep.clone()).await.problem(400, "invalid_request");
        let inside = format!(r#"{{"rideId": "ride_1", "content": "x", "metadata": {{"a": {deep}}}}}"#);
        fixture.send_bytes(inside).await.problem(400, "invalid_request");
    }
    fixture.assert_unchanged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_parameters_are_rejected_by_name() {
    let fixture = Fixture::new().await;
    let rider = &fixture.rider;
    let overflow = "9223372036854775808";
    for cursor in ["-1", "1e5", overflow, "x", "1.0", "+1", "0x10", "%201", "\u{661}", ""] {
        if !cursor.is_empty() {
            rider.get(&format!("messages/rides/ride_1/events?after={cursor}")).await.invalid_field("after");
        }
        rider.get(&format!("messages/rides/ride_1/poll?after={cursor}&wait=0")).await.invalid_field("after");
        rider.get(&format!("messages/rides/ride_1?after={cursor}")).await.invalid_field("after");
        rider.get(&format!("messages/rides/ride_1?before={cursor}")).await.invalid_field("before");
    }
    for cursor in ["x", "-1", "1e5", overflow, "1,2"] {
        let request = rider.request(Method::GET, "messages/rides/ride_1/events?after=0");
        rider.execute(request.header("last-event-id", cursor)).await.invalid_field("Last-Event-ID");
    }
    for limit in ["0", "-1", "201", "x", "1.5", "99999999999999999999"] {
        rider.get(&format!("messages/rides/ride_1?limit={limit}")).await.invalid_field("limit");
        rider.get(&format!("rides?limit={limit}")).await.invalid_field("limit");
    }
    for wait in ["56", "-1", "x", "0.5"] {
        rider.get(&format!("messages/rides/ride_1/poll?after=0&wait={wait}")).await.invalid_field("wait");
    }
    for heartbeat in ["4", "61", "-5", "x", "0"] {
        rider.get(&format!("messages/rides/ride_1/events?heartbeat={heartbeat}")).await.invalid_field("heartbeat");
    }
    rider.get("messages/rides/ride_1?before=5&after=1").await.problem(400, "invalid_request");
    fixture.assert_unchanged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_ids_are_rejected() {
    let fixture = Fixture::new().await;
    let rider = &fixture.rider;
    for id in ["a%20b", "%00", "a%2Fb", "%C3%A9", "%F0%9F%9A%95", &"x".repeat(65), "a%0Ab", "a;b", "'--"] {
        for path in ["", "/unread-count", "/events", "/poll"] {
            rider.get(&format!("messages/rides/{id}{path}")).await.problem(400, "invalid_request");
        }
        rider.get(&format!("rides/{id}")).await.problem(400, "invalid_request");
        let body = json!({ "riderId": "rider_1" });
        fixture.server.service().put(&format!("rides/{id}"), body).await.problem(400, "invalid_request");
    }
    let uuid = fixture.message["id"].as_str().unwrap();
    for id in ["1", "not-a-uuid", "%00", &uuid[1..], &format!("%7B{uuid}%7D"), &uuid.replace('-', "")] {
        let path = format!("messages/{id}");
        rider.get(&path).await.problem(400, "invalid_request");
        rider.patch(&path, json!({ "content": "x" })).await.problem(400, "invalid_request");
        rider.delete(&path).await.problem(400, "invalid_request");
        rider.post_empty(&format!("{path}/read")).await.problem(400, "invalid_request");
        rider.post_empty(&format!("{path}/delivered")).await.problem(400, "invalid_request");
    }
    fixture.assert_unchanged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_paths_get_404_and_wrong_methods_get_405() {
    let fixture = Fixture::new().await;
    let rider = &fixture.rider;
    for path in ["", "nothing", "messages/rides/ride_1/nothing", "rides/ride_1/events/x"] {
        rider.get(path).await.problem(404, "not_found");
    }
    let wrong = [
        (Method::DELETE, "messages", "POST"),
        (Method::POST, "messages/rides/ride_1", "GET"),
        (Method::POST, "messages/rides/ride_1/events", "GET"),
        (Method::PUT, "messages/rides/ride_1/poll", "GET"),
        (Method::PUT, "messages/unread-count", "GET"),
        (Method::PATCH, "messages/unread-count", "GET"),
        (Method::OPTIONS, "messages/unread-count", "GET"),
        (Method::DELETE, "rides/ride_1", "GET"),
        (Method::GET, "rides/ride_1/accept", "POST"),
        (Method::PATCH, "rides", "GET"),
    ];
    for (method, path, allowed) in wrong {
        let response = rider.send_bytes(method, path, "{}").await;
        let allow = response.header("allow").to_owned();
        assert!(allow.split(',').any(|method| method.trim() == allowed), "{}: Allow: {allow:?}", response.request);
        response.problem(405, "method_not_allowed");
    }
    let request = rider.request(Method::DELETE, &format!("{}/read", fixture.path()));
    rider.execute(request).await.problem(405, "method_not_allowed");
    fixture.assert_unchanged().await;
}
