//! The access log: each request has a line with the id of its response.

use std::collections::BTreeMap;
use std::ops::Index;
use std::process::Stdio;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::metrics::scrape;
use crate::support::{Database, SECRET, Server, TIMEOUT, eventually, ridewire};

/// A line of the access log.
#[derive(Debug, Clone, PartialEq)]
struct Line {
    event: String,
    fields: BTreeMap<String, String>,
}

impl Index<&str> for Line {
    type Output = str;

    /// Returns a field's value, or an empty string where the line does not have the field.
    fn index(&self, field: &str) -> &str {
        self.fields.get(field).map(String::as_str).unwrap_or_default()
    }
}

impl Line {
    fn of_text(line: &str) -> Option<Self> {
        let (_, line) = line.split_once(" INFO access: ")?;
        let words = line.split(' ');
        let (fields, event): (Vec<&str>, Vec<&str>) = words.partition(|word| word.contains('='));
        let fields = fields.into_iter().map(|field| field.split_once('=').unwrap());
        let fields = fields.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()));
        Some(Self { event: event.join(" "), fields: fields.collect() })
    }

    fn of_json(line: &str) -> Option<Self> {
        let Value::Object(mut members) = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        else {
            panic!("{line}");
        };
        let (target, event) = (members.remove("target").unwrap(), members.remove("message").unwrap());
        let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        let fields = members.into_iter().map(|(name, value)| (name, text(value)));
        (target == "access").then(|| Self { event: text(event), fields: fields.collect() })
    }

    /// Returns all lines of a server's access log.
    fn all(server: &Server, format: &str) -> Vec<Self> {
        let log = server.log();
        // The last line may be incomplete.
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        let read: fn(&str) -> Option<Self> = if format == "json" { Self::of_json } else { Self::of_text };
        whole.lines().filter_map(read).collect()
    }
}

/// Waits for the line of an event of a request.
async fn line(server: &Server, format: &str, id: &str, event: &str) -> Line {
    assert!(!id.is_empty(), "a response has an id");
    eventually(&format!("{event} of {id} is in the log"), async || {
        Line::all(server, format).into_iter().find(|line| &line["request.id"] == id && line.event == event)
    })
    .await
}

/// Sends bytes on a new connection and reads until the server closes it.
async fn send_raw(server: &Server, bytes: impl AsRef<[u8]>) -> String {
    let mut connection = TcpStream::connect(server.address()).await.unwrap();
    // The server may close the connection before it has read everything.
    let _ = connection.write_all(bytes.as_ref()).await;
    let mut received = Vec::new();
    let _ = timeout(TIMEOUT, connection.read_to_end(&mut received)).await.expect("the server closes the connection");
    String::from_utf8_lossy(&received).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_access_log_has_each_request_with_the_id_of_its_response() {
    let database = Database::create().await;
    for format in ["text", "json"] {
        let server = Server::start_with(&database, &[("RIDEWIRE_LOG_FORMAT", format)]).await;
        let ride = format!("ride_{format}");
        let (rider, driver) = server.open_ride(&ride).await;
        let sent = rider.post("messages", json!({ "rideId": ride, "content": "Hello" })).await.expect(201);
        let reaction = format!("messages/{}/reactions/%F0%9F%91%8D", sent.json()["id"].as_str().unwrap());
        let named = rider.request(Method::GET, "rides").header("x-request-id", "named-by-the-client");
        let requests = [
            (sent, 201, "POST", "/api/v1/messages", "rider"),
            (rider.get("rides/ride_9").await, 404, "GET", "/api/v1/rides/{rideId}", "rider"),
            (rider.clone().with_token("").get("rides").await, 401, "GET", "/api/v1/rides", ""),
            (rider.get("rides?color=red").await, 400, "GET", "/api/v1/rides", "rider"),
            (rider.get("nowhere").await, 404, "GET", "unmatched", ""),
            (rider.delete("messages").await, 405, "DELETE", "unmatched", ""),
            (
                rider.execute(rider.request(Method::from_bytes(b"BREW").unwrap(), "rides")).await,
                405,
                "OTHER",
                "unmatched",
                "",
            ),
            (
                rider.send_bytes(Method::POST, "messages", "x".repeat(70_000)).await,
                413,
                "POST",
                "/api/v1/messages",
                "rider",
            ),
            (rider.execute(rider.request(Method::HEAD, "rides")).await, 200, "HEAD", "/api/v1/rides", "rider"),
            (
                driver.execute(driver.request(Method::PUT, &reaction)).await,
                204,
                "PUT",
                "/api/v1/messages/{messageId}/reactions/{emoji}",
                "driver",
            ),
            (server.service().get("feed/poll").await, 200, "GET", "/api/v1/feed/poll", "service"),
            (rider.execute(named).await, 200, "GET", "/api/v1/rides", "rider"),
        ];
        for (response, status, method, route, role) in requests {
            let response = response.expect(status);
            let id = response.header("x-request-id").to_owned();
            let line = line(&server, format, &id, "request completed").await;
            assert_eq!((&line["method"], &line["route"], &line["role"]), (method, route, role), "{line:?}");
            assert_eq!(line["status"], *status.to_string(), "{line:?}");
            assert!(line["duration_ms"].parse::<f64>().unwrap() >= 0.0, "{line:?}");
            if status >= 400 {
                let problem: Value = serde_json::from_slice(&response.body).unwrap();
                assert_eq!(problem["requestId"], *id);
            }
        }
        line(&server, format, "named-by-the-client", "request completed").await;
        // A probe, and a request that is rejected before it reaches a handler.
        let ready = reqwest::get(format!("{}/readyz", server.base)).await.unwrap();
        let id = ready.headers()["x-request-id"].to_str().unwrap();
        assert_eq!(&line(&server, format, id, "request completed").await["route"], "/readyz");
        let received = send_raw(&server, "GET /api/v1/rides HTTP/1.1\r\nConnection: close\r\n\r\n").await;
        assert!(received.starts_with("HTTP/1.1 400"), "{received}");
        let id = received.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap();
        assert_eq!(&line(&server, format, id, "request completed").await["status"], "400");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_logged_when_it_opens_and_when_it_ends() {
    let database = Database::create().await;
    for format in ["text", "json"] {
        let server = Server::start_with(&database, &[("RIDEWIRE_LOG_FORMAT", format)]).await;
        let (rider, driver) = server.open_ride("ride_1").await;
        let ticket = rider.post("stream-tickets", json!({})).await.expect(201).json()["ticket"].clone();
        let with_ticket = rider.clone().with_token("");
        let ticket = format!("ticket={}", ticket.as_str().unwrap());
        let streams = [
            (driver.stream("ride_1", "after=0").await, "/api/v1/messages/rides/{rideId}/events", "driver"),
            (with_ticket.stream_all(&ticket, None).await, "/api/v1/events", "rider"),
            (server.service().stream_all("", None).await, "/api/v1/events", "service"),
        ];
        for (mut stream, route, role) in streams {
            stream.next_sync().await;
            let id = stream.headers["x-request-id"].to_str().unwrap().to_owned();
            let opened = line(&server, format, &id, "stream opened").await;
            let fields = |line: &Line| ["method", "route", "role", "status"].map(|field| line[field].to_owned());
            assert_eq!(fields(&opened), ["GET", route, role, "200"]);
            assert!(Line::all(&server, format).iter().all(|line| line["request.id"] != *id || line == &opened));
            drop(stream);
            let closed = line(&server, format, &id, "stream closed").await;
            assert_eq!(fields(&closed), fields(&opened));
            let duration = |line: &Line| line["duration_ms"].parse::<f64>().unwrap();
            assert!(duration(&closed) > duration(&opened), "{opened:?} {closed:?}");
        }
        // A stream that is rejected is logged like other requests.
        let none = driver.get("messages/rides/ride_9/events").await.expect(404);
        line(&server, format, none.header("x-request-id"), "request completed").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abandoned_poll_is_logged() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (_, driver) = server.open_ride("ride_1").await;
    let mut connection = TcpStream::connect(server.address()).await.unwrap();
    let head = "GET /api/v1/poll?after=0&wait=55&types=message:new HTTP/1.1\r\nHost: x\r\nX-Request-Id: left";
    let head = format!("{head}\r\nAuthorization: Bearer {}\r\n\r\n", driver.token);
    connection.write_all(head.as_bytes()).await.unwrap();
    eventually("the poll waits", async || {
        (scrape(&server).await[r#"ridewire_connections{transport="poll"}"#] == 1.0).then_some(())
    })
    .await;
    drop(connection);
    let left = line(&server, "text", "left", "request abandoned").await;
    assert_eq!((&left["status"], &left["route"], &left["role"]), ("499", "/api/v1/poll", "driver"));
    let counted = r#"ridewire_http_request_duration_seconds_count{method="GET",route="/api/v1/poll",status="499"}"#;
    assert_eq!(scrape(&server).await[counted], 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_request_is_logged_with_its_status() {
    let database = Database::create().await;
    for format in ["text", "json"] {
        let settings = [("RIDEWIRE_MAX_HEAD", "8192"), ("RIDEWIRE_LOG_FORMAT", format)];
        let mut server = Server::start_with(&database, &settings).await;
        let large = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Large: {}\r\n\r\n", "x".repeat(20_000));
        for (bytes, status) in
            [("GARBAGE\r\n\r\n", "400"), ("GET / HTTP/1.1\r\na b: c\r\n\r\n", "400"), (&*large, "431")]
        {
            let rejected = || {
                let lines = Line::all(&server, format).into_iter();
                lines.filter(|line| line.event.starts_with("request rejected") && &line["status"] == status).count()
            };
            let before = rejected();
            let received = send_raw(&server, bytes).await;
            // Unread request bytes may reset the connection before the client has read the response.
            assert!(
                received.is_empty() && status == "431" || received.starts_with(&format!("HTTP/1.1 {status}")),
                "{received}"
            );
            eventually("the rejection is in the log", async || (rejected() == before + 1).then_some(())).await;
        }
        // HTTP/2 without TLS gets no response, and therefore no line.
        send_raw(&server, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        assert_eq!(until_stopped(&mut server).await.matches("request rejected").count(), 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_access_log_can_be_switched_off() {
    let database = Database::create().await;
    let mut server = Server::start_with(&database, &[("RIDEWIRE_LOG", "info,access=off")]).await;
    server.open_ride("ride_1").await;
    let log = until_stopped(&mut server).await;
    assert!(log.contains("stopping") && log.contains("starting"), "{log}");
    assert!(!log.contains(" access: ") && !log.contains("request completed"), "{log}");
}

/// Stops a server and returns its whole log.
async fn until_stopped(server: &mut Server) -> String {
    server.signal(nix::sys::signal::Signal::SIGTERM);
    eventually("the server ends", async || (!server.is_running()).then_some(())).await;
    server.log()
}

/// Parses the lines of a log. Each must be an object with a time, a level, a message and a target.
fn objects(log: &str) -> Vec<Value> {
    let object = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}\n{log}"));
        for member in ["timestamp", "level", "message", "target"] {
            assert!(line[member].is_string(), "{member} of {line}");
        }
        assert!(line.as_object().unwrap().keys().all(|name| !name.starts_with("log.")), "{line}");
        line
    };
    log.lines().map(object).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_of_a_json_log_is_json() {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_LOG_FORMAT", "json"), ("RIDEWIRE_LOG", "trace")];
    let mut server = Server::start_with(&database, &settings).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let stream = server.live_stream(&driver, "ride_1").await;
    let last = rider.post("messages", json!({ "rideId": "ride_1", "content": "Hello" })).await.expect(201);
    let last = last.header("x-request-id").to_owned();
    let log = until_stopped(&mut server).await;
    drop(stream);
    let lines = objects(&log);
    assert!(lines.iter().any(|line| line["message"] == "server stopped"), "{log}");
    // The access log is complete.
    assert!(lines.iter().any(|line| line["request.id"] == *last && line["message"] == "request completed"), "{log}");
    assert!(lines.iter().any(|line| line["message"] == "stream closed"), "{log}");

    // Errors that stop the program.
    let other = Server::start(&database).await;
    let used_port = [("RIDEWIRE_JWT_SECRET", SECRET), ("RIDEWIRE_LISTEN", other.address())];
    let no_database = [("RIDEWIRE_JWT_SECRET", SECRET), ("DATABASE_URL", "http://nowhere")];
    for (command, settings, named) in [
        ("serve", &used_port[..], other.address()),
        ("serve", &[], "RIDEWIRE_JWT_SECRET"),
        ("migrate", &no_database[..], "DATABASE_URL"),
    ] {
        let mut program = ridewire();
        program.arg(command).env("DATABASE_URL", &database.url).env("RIDEWIRE_LOG_FORMAT", "json");
        program.envs(settings.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = timeout(TIMEOUT, program.output()).await.expect("it ends").unwrap();
        assert!(!output.status.success(), "{command} {settings:?}");
        let log = String::from_utf8(output.stderr).unwrap();
        let lines = objects(&log);
        let last = lines.last().unwrap();
        assert!(last["level"] == "ERROR" && last["error"].as_str().unwrap().contains(named), "{named}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_log_line_has_the_version_and_the_settings_without_secrets() {
    let database = Database::create().await;
    for format in ["text", "json"] {
        let settings = [
            ("RIDEWIRE_LOG_FORMAT", format),
            ("RIDEWIRE_CHAT_GRACE", "12h"),
            ("RIDEWIRE_MODERATION_URL", "http://127.0.0.1:9/ZEBRA"),
            ("RIDEWIRE_MODERATION_SECRET", "whsec_WkVCUkFaRUJSQVpFQlJBWkVCUkFaRUJSQVpFQlJB"),
            ("RIDEWIRE_OTLP_ENDPOINT", "http://user:ZEBRA@127.0.0.1:9"),
        ];
        let server = Server::start_with(&database, &settings).await;
        let log = server.log();
        let first = log.lines().next().unwrap();
        assert!(first.contains("starting") && first.contains(env!("CARGO_PKG_VERSION")), "{first}");
        for shown in [
            "DATABASE_URL=",
            "RIDEWIRE_CHAT_GRACE=12h",
            "RIDEWIRE_JWT_SECRET=(set)",
            "RIDEWIRE_LISTEN=127.0.0.1:0",
            "RIDEWIRE_MODERATION_SECRET=(set)",
        ] {
            assert!(first.contains(shown), "{shown} is not in {first}");
        }
        // Settings with their default value are left out.
        assert!(!first.contains("RIDEWIRE_HEARTBEAT"), "{first}");
        for secret in [SECRET, "whsec_", ":ZEBRA", "/ZEBRA"] {
            assert!(!log.contains(secret), "{secret} is in {log}");
        }
    }
}
