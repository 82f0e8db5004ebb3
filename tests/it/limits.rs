//! What one user, one client and one connection may take of the server; and how streams leave one that stops.

use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::support::{Answer, Database, PATIENCE, SECRET, Server, User, eventually, ridewire};

/// Bytes until the server closes the connection.
async fn until_closed(connection: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end, too.
    let _ = timeout(PATIENCE, connection.read_to_end(&mut bytes)).await.expect("the server closes the connection");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_leave_a_server_that_stops_one_by_one_and_new_ones_are_put_off() {
    let database = Database::create().await;
    // It stops when all have left, 50 ms each: they are as many as this machine takes to ask for another one meanwhile.
    for count in [20, 60, 200, 600] {
        if leave_one_by_one(&database, &format!("ride_{count}"), count).await {
            return;
        }
    }
    panic!("the server has always stopped before it was asked");
}

/// `false`: it had stopped before it could be asked for another one.
async fn leave_one_by_one(database: &Database, ride: &str, count: u32) -> bool {
    let server = Server::with(database, &[("RIDEWIRE_DRAIN_WINDOW", "60s")]).await;
    let (rider, driver) = server.open_ride(ride).await;
    let mut streams = Vec::new();
    for _ in 0..count {
        streams.push(server.live(&driver, ride).await);
    }
    let (rider, asked) = (rider.on(&server), Instant::now());
    server.signal(Signal::SIGTERM);
    let ready = format!("{}/readyz", server.base);
    loop {
        let Ok(answer) = reqwest::get(&ready).await else { return false };
        if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
            break;
        }
    }
    let events = format!("messages/rides/{ride}/events");
    let Ok(late) = rider.request(Method::GET, &events).send().await else { return false };
    let late = Answer::of(events, late).await.expect(200);
    assert_eq!(late.text().matches("retry: ").count(), 1, "{}", late.text());
    assert!(!late.text().contains("event: "), "a stream that is put off has no events: {}", late.text());

    let mut ends = Vec::new();
    for mut stream in streams {
        ends.push(tokio::spawn(async move {
            let events = stream.until_end().await;
            let closing = events.last().expect("it says why it ends");
            assert_eq!((closing.kind.as_str(), &closing.data), ("stream:closing", &json!({ "reason": "shutdown" })));
            assert_eq!(stream.retries.last(), Some(&1_000));
            Instant::now()
        }));
    }
    let mut last = asked;
    for end in ends {
        last = last.max(end.await.unwrap());
    }
    // Nobody leaves before their moment; the last of 20 has the 19th.
    assert!(last - asked >= Duration::from_millis(50) * (count - 1), "{:?}", last - asked);
    // When the last has left it ends, and does not wait for the end of the window.
    assert!(server.terminate().await.success());
    assert!(asked.elapsed() < Duration::from_secs(60), "{:?}", asked.elapsed());
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_has_so_many_streams_and_polls_and_the_next_is_put_off() {
    let database = Database::create().await;
    let server = Server::with(&database, &[("RIDEWIRE_STREAMS_PER_USER", "2")]).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let first = server.live(&driver, "ride_1").await;
    let mut second = driver.stream_all("", None).await.expect(200);
    second.next_sync().await;

    let mut third = driver.stream("ride_1", "").await.expect(200);
    assert!(third.until_end().await.is_empty());
    assert_eq!(third.retries.len(), 1);
    let refused = driver.get("messages/rides/ride_1/poll?after=0").await;
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!(wait >= 1);
    refused.problem(429, "too_many_requests");
    // Others are not concerned, and what ends makes room.
    server.live(&rider, "ride_1").await;
    drop(first);
    eventually("there is room again", async || {
        driver.stream("ride_1", "").await.try_next().await.filter(|event| event.kind == "stream:sync")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sends_too_fast_is_told_when_to_go_on_and_nothing_of_it_is_kept() {
    let database = Database::create().await;
    let server = Server::with(&database, &[("RIDEWIRE_SENDS_PER_SECOND", "1")]).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let sends = (0..40).map(|number| {
        let rider = rider.clone();
        tokio::spawn(async move { rider.send_named("ride_1", "Hello", &format!("name-{number}")).await })
    });
    let (mut sent, mut refused) = (0, 0);
    for send in sends.collect::<Vec<_>>() {
        let answer = send.await.unwrap();
        assert_eq!(answer.header("ratelimit-policy"), r#""sends";q=5;w=5"#);
        assert!(answer.header("ratelimit").starts_with(r#""sends";r="#), "{}", answer.header("ratelimit"));
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            let wait: u64 = answer.header("retry-after").parse().unwrap();
            assert!((1..=2).contains(&wait), "{wait}");
            answer.problem(429, "too_many_requests");
            refused += 1;
        } else {
            answer.expect(201);
            sent += 1;
        }
    }
    assert!(sent >= 5 && refused > 0, "{sent} sent, {refused} refused");
    let history = driver.history("ride_1", "?limit=200").await;
    assert_eq!(history["messages"].as_array().unwrap().len(), sent);
    // Others have buckets of their own.
    driver.send("ride_1", "Hello").await;
    eventually("the bucket fills again", async || {
        (rider.send_named("ride_1", "Hello", "again").await.status == StatusCode::CREATED).then_some(())
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
    let ask = async |user: &User, method: &Method, path: &str, body: &Value| {
        let request = user.request(method.clone(), path);
        user.ask(if body.is_null() { request } else { request.json(body) }).await
    };
    // Each succeeds, and says what is left.
    for (user, method, path, body) in &writes {
        let answer = ask(user, method, path, body).await;
        assert!(answer.status.is_success(), "{method} {path}: {} {}", answer.status, answer.text());
        assert_eq!(answer.header("ratelimit-policy"), r#""sends";q=5000;w=5"#, "{method} {path}");
    }
    // With an empty bucket none does, and it says when to come back.
    let slow = Server::with(&database, &[("RIDEWIRE_SENDS_PER_SECOND", "1")]).await;
    for (user, method, path, body) in &writes {
        let user = user.on(&slow);
        let rejected = eventually(&format!("{method} {path} is limited"), async || {
            let answer = ask(&user, method, path, body).await;
            (answer.status == StatusCode::TOO_MANY_REQUESTS).then_some(answer)
        })
        .await;
        assert!(rejected.header("retry-after").parse::<u64>().unwrap() >= 1);
        rejected.problem(429, "too_many_requests");
        // Reading is not writing.
        user.get("rides").await.expect(200);
    }
    let service = slow.service();
    for number in 0..50 {
        service.put_ride(&format!("ride_of_service_{number}"), "rider_1", None).await.expect(201);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_does_not_come_is_not_waited_for() {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_HEAD_TIMEOUT", "1s"), ("RIDEWIRE_MAX_HEAD", "8192")];
    let server = Server::with(&database, &settings).await;
    let connect = async || TcpStream::connect(server.address()).await.unwrap();

    let mut silent = connect().await;
    assert_eq!(until_closed(&mut silent).await, "");
    let mut slow = connect().await;
    slow.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
    let said = until_closed(&mut slow).await;
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{said}");
    let mut large = connect().await;
    let head = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Large: {}\r\n\r\n", "x".repeat(20_000));
    // The server may have closed before it has all of it.
    let _ = large.write_all(head.as_bytes()).await;
    let said = until_closed(&mut large).await;
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 431"), "{said}");
    // What does ask has its time there, however busy the machine is.
    let server = Server::with(&database, &[("RIDEWIRE_BODY_TIMEOUT", "1s")]).await;
    let mut body = TcpStream::connect(server.address()).await.unwrap();
    let token = server.rider("rider_1").token;
    let head = format!("POST /api/v1/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n");
    body.write_all(format!("{head}Content-Length: 100\r\n\r\n{{").as_bytes()).await.unwrap();
    let said = until_closed(&mut body).await;
    assert!(said.starts_with("HTTP/1.1 4"), "{said}");

    // And others are served.
    server.open_ride("ride_1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_past_the_limit_wait_for_one_to_end() {
    let database = Database::create().await;
    let server = Server::with(&database, &[("RIDEWIRE_MAX_CONNECTIONS", "1")]).await;
    let mut first = TcpStream::connect(server.address()).await.unwrap();
    let ask = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    first.write_all(ask).await.unwrap();
    let mut answer = [0; 15];
    first.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    let mut second = TcpStream::connect(server.address()).await.unwrap();
    second.write_all(ask).await.unwrap();
    // Not accepted: no answer comes as long as the first is there.
    assert!(timeout(Duration::from_millis(500), second.read_exact(&mut answer)).await.is_err());
    drop(first);
    timeout(PATIENCE, second.read_exact(&mut answer)).await.expect("it is its turn").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_nothing_is_cut_off_and_the_others_miss_nothing() {
    let database = Database::create().await;
    // Long enough for the one that reads, however busy the machine is.
    let settings = [("RIDEWIRE_WRITE_TIMEOUT", "3s"), ("RIDEWIRE_PRESENCE_GRACE", "100ms")];
    let server = Server::with(&database, &settings).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let mut live = server.live(&rider, "ride_1").await;
    let (sent, mut told) = tokio::sync::watch::channel(0);
    let reading = tokio::spawn(async move {
        let mut read = 0;
        loop {
            // All that was sent is read, and nothing more will be.
            if told.wait_for(|sent| *sent > read).await.is_err() {
                return read;
            }
            live.next_of("message:new").await;
            read += 1;
        }
    });
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stuck = socket.connect(server.address().parse().unwrap()).await.unwrap();
    let head = "GET /api/v1/messages/rides/ride_1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer";
    stuck.write_all(format!("{head} {}\r\n\r\n", driver.token).as_bytes()).await.unwrap();
    let is_online = async || {
        let presence = rider.get("messages/rides/ride_1/presence").await.expect(200).json();
        let people = presence["participants"].as_array().unwrap();
        people.iter().find(|person| person["role"] == "driver").unwrap()["online"] == true
    };
    eventually("the driver is there", async || is_online().await.then_some(())).await;

    // The kernel takes a few megabytes before the server notices; 4,000 characters of four bytes each.
    let large = "\u{1F697}".repeat(4_000);
    eventually("the one that takes nothing is cut off", async || {
        if *sent.borrow() < 1_000 {
            for _ in 0..50 {
                rider.send("ride_1", &large).await;
                sent.send_modify(|sent| *sent += 1);
            }
        }
        (!is_online().await).then_some(())
    })
    .await;
    until_closed(&mut stuck).await;
    let all = *sent.borrow();
    drop(sent);
    assert_eq!(reading.await.unwrap(), all, "the one that reads misses nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_started_with_few_files_takes_what_it_may_have() {
    let database = Database::create().await;
    let server = ridewire();
    let mut command = tokio::process::Command::new("sh");
    command.args(["-c", "ulimit -S -n 256 && exec \"$0\""]).arg(server.as_std().get_program()).kill_on_drop(true);
    command.env("DATABASE_URL", &database.url).env("RIDEWIRE_JWT_SECRET", SECRET).env("RIDEWIRE_LISTEN", "127.0.0.1:0");
    command.env("RIDEWIRE_MAX_CONNECTIONS", "100").stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    timeout(PATIENCE, said.next_line()).await.expect("it listens").unwrap();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id().unwrap())).unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().next(), Some("1100"), "{files}");
}
