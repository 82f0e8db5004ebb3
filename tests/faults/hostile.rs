//! Hostile clients: idle connections, endless request heads, endless bodies and invalid tokens. The server keeps serving
//! other clients, and releases all resources afterwards.

mod ceiling;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::{Database, Server, TIMEOUT, User, eventually};
use crate::{limit_heavy_tests, size};

/// Sends a message and checks that it reaches the reader.
async fn assert_serves(rider: &User, stream: &mut crate::support::Stream, what: &str) {
    let sent = timeout(TIMEOUT, rider.send("ride", what)).await.expect("a response in time");
    assert_eq!(stream.next_of_type("message:new").await.data["id"], sent["id"], "{what}");
}

/// A value of `/metrics`.
async fn metric(server: &Server, name: &str) -> f64 {
    let text = reqwest::get(format!("{}/metrics", server.base)).await.unwrap().text().await.unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_and_endless_request_heads_are_closed_and_other_clients_are_served() {
    let _permit = limit_heavy_tests().await;
    let database = Database::create().await;
    let server = Server::start_with(&database, &[("RIDEWIRE_HEAD_TIMEOUT", "3s")]).await;
    let (rider, driver) = server.open_ride("ride").await;
    let mut stream = server.live_stream(&driver, "ride").await;
    let before = metric(&server, "process_open_fds").await;
    let connections = size(1_000, 10_000);
    let mut open = Vec::new();
    for number in 0..connections {
        let mut connection = TcpStream::connect(server.address()).await.unwrap();
        // Half of the connections send nothing. The others send a request head that never ends.
        if number % 2 == 0 {
            connection.write_all(b"GET /api/v1/rides HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
        }
        open.push(connection);
        if number % (connections / 10) == 0 {
            assert_serves(&rider, &mut stream, "while the connections are opened").await;
        }
    }
    assert_serves(&rider, &mut stream, "while the connections are open").await;
    for connection in &mut open {
        let mut response = Vec::new();
        let _ = timeout(TIMEOUT, connection.read_to_end(&mut response)).await.expect("the connection is closed");
    }
    drop(open);
    eventually("all connections are closed", async || {
        (metric(&server, "process_open_fds").await <= before + 20.0).then_some(())
    })
    .await;
    assert_serves(&rider, &mut stream, "after the connections are closed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_bodies_are_rejected_before_they_are_read() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride").await;
    let mut stream = server.live_stream(&driver, "ride").await;
    let before = metric(&server, "process_resident_memory_bytes").await;
    let megabyte = Arc::new(vec![b'a'; 1 << 20]);
    let mut senders = JoinSet::new();
    for number in 0..size(8, 50) {
        let (address, token, megabyte) = (server.address().to_owned(), rider.token.clone(), Arc::clone(&megabyte));
        senders.spawn(async move {
            let mut connection = TcpStream::connect(address).await.unwrap();
            // Half of the clients send a `Content-Length`. The others send chunks without end.
            let length = if number % 2 == 0 { "Content-Length: 104857600" } else { "Transfer-Encoding: chunked" };
            let head = format!(
                "POST /api/v1/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{length}\r\n\r\n"
            );
            connection.write_all(head.as_bytes()).await.unwrap();
            let mut written = 0;
            while written < 100 {
                let mut part = Vec::new();
                if number % 2 == 1 {
                    part.extend_from_slice(b"100000\r\n");
                }
                part.extend_from_slice(&megabyte);
                part.extend_from_slice(if number % 2 == 1 { b"\r\n" } else { b"" });
                if timeout(TIMEOUT, connection.write_all(&part)).await.expect("the body is read or rejected").is_err() {
                    break;
                }
                written += 1;
            }
            let mut response = Vec::new();
            let _ = timeout(TIMEOUT, connection.read_to_end(&mut response)).await.expect("the connection ends");
            assert!(written < 100, "the whole body was read");
            String::from_utf8_lossy(&response).into_owned()
        });
    }
    assert_serves(&rider, &mut stream, "under load").await;
    for response in senders.join_all().await {
        // A connection reset may arrive before the response.
        assert!(response.is_empty() || response.starts_with("HTTP/1.1 413"), "{response}");
    }
    let grown = metric(&server, "process_resident_memory_bytes").await - before;
    assert!(grown < 64.0 * 1024.0 * 1024.0, "{grown} bytes more");
    assert_serves(&rider, &mut stream, "after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_number_of_invalid_tokens_is_rejected_and_uses_no_lasting_memory() {
    let _permit = limit_heavy_tests().await;
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride").await;
    let mut stream = server.live_stream(&driver, "ride").await;
    let (all, clients) = (size(20_000, 1_000_000), 16);
    let rejected = Arc::new(AtomicUsize::new(0));
    let good = rider.token.clone();
    let before = metric(&server, "process_resident_memory_bytes").await;
    let mut attackers = JoinSet::new();
    for client in 0..clients {
        let (base, good, rejected) = (server.base.clone(), good.clone(), Arc::clone(&rejected));
        attackers.spawn(async move {
            let http = reqwest::Client::builder().no_proxy().build().unwrap();
            for number in 0..all / clients {
                let (signed, signature) = good.rsplit_once('.').unwrap();
                // Each token is different: a wrong signature, truncated, another algorithm in its header, or random text.
                let token = match number % 4 {
                    0 => format!("{signed}.{client}x{number}x{}", &signature[8..]),
                    1 => good[..good.len() - 1 - number % 40].to_owned(),
                    2 => format!("eyJhbGciOiJub25lIn0.{}.", signed.split_once('.').unwrap().1),
                    _ => format!("{}{client}-{number}", "A".repeat(number % 3_000)),
                };
                let response = http.get(format!("{base}/api/v1/rides")).bearer_auth(token).send().await.unwrap();
                assert_eq!(response.status(), 401);
                response.bytes().await.unwrap();
                rejected.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let mut served = 0;
    while !attackers.is_empty() {
        assert_serves(&rider, &mut stream, "under load").await;
        served += 1;
        while let Some(ended) = attackers.try_join_next() {
            ended.unwrap();
        }
    }
    assert!(served > 10, "{served}");
    assert_eq!(rejected.load(Ordering::Relaxed), all / clients * clients);
    let grown = metric(&server, "process_resident_memory_bytes").await - before;
    assert!(grown < 32.0 * 1024.0 * 1024.0, "{grown} bytes more");
    assert!(!server.log().contains(&good), "no token is logged");
}
