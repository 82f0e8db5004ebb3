//! Limits per user, client and connection; and how a stopping server drains its streams.

use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::support::{Database, Response, SECRET, Server, TIMEOUT, User, eventually, ridewire};

/// Reads until the server closes the connection.
async fn until_closed(connection: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset counts as closed.
    let _ = timeout(TIMEOUT, connection.read_to_end(&mut bytes)).await.expect("the server closes the connection");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_server_ends_its_streams_one_by_one_and_throttles_new_ones() {
    let database = Database::create().await;
    // The server stops when all streams have ended, 50 ms each. There must be enough streams to open another one during the drain.
    for count in [20, 60, 200, 600] {
        if drain(&database, &format!("ride_{count}"), count).await {
            return;
        }
    }
    panic!("the server has always stopped before the next request");
}

/// Drains a server with `count` streams. Returns `false` if it stopped before another stream could be requested.
async fn drain(database: &Database, ride: &str, count: u32) -> bool {
    let server = Server::start_with(database, &[("RIDEWIRE_DRAIN_WINDOW", "60s")]).await;
    let (rider, driver) = server.open_ride(ride).await;
    let mut streams = Vec::new();
    for _ in 0..count {
        streams.push(server.live_stream(&driver, ride).await);
    }
    let (rider, started) = (rider.on(&server), Instant::now());
    server.signal(Signal::SIGTERM);
    let ready = format!("{}/readyz", server.base);
    loop {
        let Ok(response) = reqwest::get(&ready).await else { return false };
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            break;
        }
    }
    let events = format!("messages/rides/{ride}/events");
    let Ok(late) = rider.request(Method::GET, &events).send().await else { return false };
    let late = Response::of(events, late).await.expect(200);
    assert_eq!(late.text().matches("retry: ").count(), 1, "{}", late.text());
    assert!(!late.text().contains("event: "), "a throttled stream has no events: {}", late.text());

    let mut ends = Vec::new();
    for mut stream in streams {
        ends.push(tokio::spawn(async move {
            let events = stream.until_end().await;
            let closing = events.last().expect("the stream ends with a reason");
            assert_eq!((closing.kind.as_str(), &closing.data), ("stream:closing", &json!({ "reason": "shutdown" })));
            assert_eq!(stream.retries.last(), Some(&1_000));
            Instant::now()
        }));
    }
    let mut last = started;
    for end in ends {
        last = last.max(end.await.unwrap());
    }
    // No stream ends before its time slot. The last of n streams has slot n - 1.
    assert!(last - started >= Duration::from_millis(50) * (count - 1), "{:?}", last - started);
    // The server exits after the last stream, without waiting for the end of the drain window.
    assert!(server.terminate().await.success());
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_and_polls_past_the_users_limit_are_throttled() {
    let database = Database::create().await;
    let server = Server::start_with(&database, &[("RIDEWIRE_STREAMS_PER_USER", "2")]).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let first = server.live_stream(&driver, "ride_1").await;
    let mut second = driver.stream_all("", None).await.expect(200);
    second.next_sync().await;

    let mut third = driver.stream("ride_1", "").await.expect(200);
    assert!(third.until_end().await.is_empty());
    assert_eq!(third.retries.len(), 1);
    let rejected = driver.get("messages/rides/ride_1/poll?after=0").await;
    let wait: u64 = rejected.header("retry-after").parse().unwrap();
    assert!(wait >= 1);
    rejected.problem(429, "too_many_requests");
    // Other users are not affected. A stream that ends frees its slot.
    server.live_stream(&rider, "ride_1").await;
    drop(first);
    eventually("a stream opens", async || {
        driver.stream("ride_1", "").await.try_next().await.filter(|event| event.kind == "stream:sync")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_past_the_rate_limit_get_429_and_are_not_stored() {
    let database = Database::create().await;
    let server = Server::start_with(&database, &[("RIDEWIRE_SENDS_PER_SECOND", "1")]).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let sends = (0..40).map(|number| {
        let rider = rider.clone();
        tokio::spawn(async move { rider.send_with_id("ride_1", "Hello", &format!("name-{number}")).await })
    });
    let (mut sent, mut rejected) = (0, 0);
    for send in sends.collect::<Vec<_>>() {
        let response = send.await.unwrap();
        assert_eq!(response.header("ratelimit-policy"), r#""sends";q=5;w=5"#);
        assert!(response.header("ratelimit").starts_with(r#""sends";r="#), "{}", response.header("ratelimit"));
        if response.status == StatusCode::TOO_MANY_REQUESTS {
            let wait: u64 = response.header("retry-after").parse().unwrap();
            assert!((1..=2).contains(&wait), "{wait}");
            response.problem(429, "too_many_requests");
            rejected += 1;
        } else {
            response.expect(201);
            sent += 1;
        }
    }
    assert!(sent >= 5 && rejected > 0, "{sent} sent, {rejected} rejected");
    let history = driver.history("ride_1", "?limit=200").await;
    assert_eq!(history["messages"].as_array().unwrap().len(), sent);
    // Each user has a separate bucket.
    driver.send("ride_1", "Hello").await;
    eventually("the bucket fills again", async || {
        (rider.send_with_id("ride_1", "Hello", "again").await.status == StatusCode::CREATED).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_send_limit_counts_every_write_of_a_user_and_none_of_the_service() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let (own, others) = (rider.send("ride_1", "Hello").await, driver.send("ride_1", "Hello").await);
    let path = |message: &Value| format!("messages/{}", message["id"].as_str().unwrap());
    let (own, others) = (path(&own), path(&others));
    let reaction = format!("{others}/reactions/%F0%9F%91%8D");
    let location = json!({ "lat": 1, "lng": 1 });
    let writes = [
        (&rider, Method::POST, "messages".to_owned(), json!({ "rideId": "ride_1", "content": "Hello" })),
        (&rider, Method::PATCH, own.clone(), json!({ "content": "Hello again" })),
        (&rider, Method::PUT, reaction.clone(), Value::Null),
        (&rider, Method::DELETE, reaction, Value::Null),
        (&rider, Method::POST, format!("{others}/delivered"), Value::Null),
        (&rider, Method::POST, format!("{others}/read"), Value::Null),
        (&rider, Method::POST, "messages/rides/ride_1/typing".to_owned(), json!({ "typing": true })),
        (&rider, Method::DELETE, own, Value::Null),
        (&rider, Method::POST, "stream-tickets".to_owned(), json!({})),
        (&driver, Method::POST, "rides/ride_1/location".to_owned(), location),
        (&driver, Method::PUT, "drivers/me/availability".to_owned(), json!({ "available": true })),
        (&driver, Method::POST, "rides/ride_1/accept".to_owned(), Value::Null),
        (&driver, Method::POST, "rides/ride_1/status".to_owned(), json!({ "status": "arrived" })),
        (&driver, Method::POST, "rides/ride_1/cancel".to_owned(), Value::Null),
    ];
    let send = async |user: &User, method: &Method, path: &str, body: &Value| {
        let request = user.request(method.clone(), path);
        user.execute(if body.is_null() { request } else { request.json(body) }).await
    };
    // Each request succeeds and reports the limit.
    for (user, method, path, body) in &writes {
        let response = send(user, method, path, body).await;
        assert!(response.status.is_success(), "{method} {path}: {} {}", response.status, response.text());
        assert_eq!(response.header("ratelimit-policy"), r#""sends";q=5000;w=5"#, "{method} {path}");
    }
    // With an empty bucket each request is rejected with a retry time.
    let slow = Server::start_with(&database, &[("RIDEWIRE_SENDS_PER_SECOND", "1")]).await;
    for (user, method, path, body) in &writes {
        let user = user.on(&slow);
        let rejected = eventually(&format!("{method} {path} is limited"), async || {
            let response = send(&user, method, path, body).await;
            (response.status == StatusCode::TOO_MANY_REQUESTS).then_some(response)
        })
        .await;
        assert!(rejected.header("retry-after").parse::<u64>().unwrap() >= 1);
        rejected.problem(429, "too_many_requests");
        // Reads are not limited.
        user.get("rides").await.expect(200);
    }
    let service = slow.service();
    for number in 0..50 {
        service.put_ride(&format!("ride_of_service_{number}"), "rider_1", None).await.expect(201);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn incomplete_requests_time_out() {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_HEAD_TIMEOUT", "1s"), ("RIDEWIRE_MAX_HEAD", "8192")];
    let server = Server::start_with(&database, &settings).await;
    let connect = async || TcpStream::connect(server.address()).await.unwrap();

    let mut silent = connect().await;
    assert_eq!(until_closed(&mut silent).await, "");
    let mut slow = connect().await;
    slow.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
    let received = until_closed(&mut slow).await;
    assert!(received.is_empty() || received.starts_with("HTTP/1.1 408"), "{received}");
    let mut large = connect().await;
    let head = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Large: {}\r\n\r\n", "x".repeat(20_000));
    // The server may close the connection before it has read everything.
    let _ = large.write_all(head.as_bytes()).await;
    let received = until_closed(&mut large).await;
    assert!(received.is_empty() || received.starts_with("HTTP/1.1 431"), "{received}");
    // A server with the default head timeout, which is long enough on a busy machine.
    let server = Server::start_with(&database, &[("RIDEWIRE_BODY_TIMEOUT", "1s")]).await;
    let mut body = TcpStream::connect(server.address()).await.unwrap();
    let token = server.rider("rider_1").token;
    let head = format!("POST /api/v1/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n");
    body.write_all(format!("{head}Content-Length: 100\r\n\r\n{{").as_bytes()).await.unwrap();
    let received = until_closed(&mut body).await;
    assert!(received.starts_with("HTTP/1.1 4"), "{received}");

    // Other clients are served.
    server.open_ride("ride_1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_past_the_limit_wait_for_one_to_end() {
    let database = Database::create().await;
    let server = Server::start_with(&database, &[("RIDEWIRE_MAX_CONNECTIONS", "1")]).await;
    let mut first = TcpStream::connect(server.address()).await.unwrap();
    let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    first.write_all(request).await.unwrap();
    let mut response = [0; 15];
    first.read_exact(&mut response).await.unwrap();
    assert_eq!(&response, b"HTTP/1.1 200 OK");
    let mut second = TcpStream::connect(server.address()).await.unwrap();
    second.write_all(request).await.unwrap();
    // The second connection is not accepted while the first is open.
    assert!(timeout(Duration::from_millis(500), second.read_exact(&mut response)).await.is_err());
    drop(first);
    timeout(TIMEOUT, second.read_exact(&mut response)).await.expect("the second connection is accepted").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_client_is_disconnected_and_other_clients_miss_nothing() {
    let database = Database::create().await;
    // Long enough for the reading client on a busy machine.
    let settings = [("RIDEWIRE_WRITE_TIMEOUT", "3s"), ("RIDEWIRE_PRESENCE_GRACE", "100ms")];
    let server = Server::start_with(&database, &settings).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let mut live = server.live_stream(&rider, "ride_1").await;
    let (sent, mut receiver) = tokio::sync::watch::channel(0);
    let reading = tokio::spawn(async move {
        let mut read = 0;
        loop {
            // All messages have been read, and no more will be sent.
            if receiver.wait_for(|sent| *sent > read).await.is_err() {
                return read;
            }
            live.next_of_type("message:new").await;
            read += 1;
        }
    });
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stalled = socket.connect(server.address().parse().unwrap()).await.unwrap();
    let head = "GET /api/v1/messages/rides/ride_1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer";
    stalled.write_all(format!("{head} {}\r\n\r\n", driver.token).as_bytes()).await.unwrap();
    let is_online = async || {
        let presence = rider.get("messages/rides/ride_1/presence").await.expect(200).json();
        let mut participants = presence["participants"].as_array().unwrap().iter();
        participants.find(|entry| entry["role"] == "driver").unwrap()["online"] == true
    };
    eventually("the driver is online", async || is_online().await.then_some(())).await;

    // The socket buffers take a few megabytes before a write blocks. A message has 4,000 characters of four bytes.
    let large = "\u{1F697}".repeat(4_000);
    eventually("the stalled connection is closed", async || {
        if *sent.borrow() < 1_000 {
            for _ in 0..50 {
                rider.send("ride_1", &large).await;
                sent.send_modify(|sent| *sent += 1);
            }
        }
        (!is_online().await).then_some(())
    })
    .await;
    until_closed(&mut stalled).await;
    let all = *sent.borrow();
    drop(sent);
    assert_eq!(reading.await.unwrap(), all, "the reading client gets all messages");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_raises_its_limit_of_open_files() {
    let database = Database::create().await;
    let server = ridewire();
    let mut command = tokio::process::Command::new("sh");
    command.args(["-c", "ulimit -S -n 256 && exec \"$0\""]).arg(server.as_std().get_program()).kill_on_drop(true);
    command.env("DATABASE_URL", &database.url).env("RIDEWIRE_JWT_SECRET", SECRET).env("RIDEWIRE_LISTEN", "127.0.0.1:0");
    command.env("RIDEWIRE_MAX_CONNECTIONS", "100").stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    timeout(TIMEOUT, stdout.next_line()).await.expect("the server starts").unwrap();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id().unwrap())).unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().next(), Some("1100"), "{files}");
}
