//! Those who mean harm: connections that say nothing, heads that never end, bodies without end, tokens that are none. The
//! server answers others meanwhile, and all of it is gone when they are.

mod ceiling;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::{Database, PATIENCE, Server, User, eventually};
use crate::{size, two_at_a_time};

/// A message goes from one to the other.
async fn works(rider: &User, stream: &mut crate::support::Stream, what: &str) {
    let sent = timeout(PATIENCE, rider.send("ride", what)).await.expect("an answer meanwhile");
    assert_eq!(stream.next_of("message:new").await.data["id"], sent["id"], "{what}");
}

/// A value of `/metrics`.
async fn metric(server: &Server, name: &str) -> f64 {
    let text = reqwest::get(format!("{}/metrics", server.base)).await.unwrap().text().await.unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_connections_and_heads_that_never_end_are_let_go_and_others_are_served() {
    let _turn = two_at_a_time().await;
    let database = Database::create().await;
    let server = Server::with(&database, &[("RIDEWIRE_HEAD_TIMEOUT", "3s")]).await;
    let (rider, driver) = server.open_ride("ride").await;
    let mut stream = server.live(&driver, "ride").await;
    let before = metric(&server, "process_open_fds").await;
    let connections = size(1_000, 10_000);
    let mut open = Vec::new();
    for number in 0..connections {
        let mut connection = TcpStream::connect(server.address()).await.unwrap();
        // Half of them say nothing at all, the others begin and do not end.
        if number % 2 == 0 {
            connection.write_all(b"GET /api/v1/rides HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
        }
        open.push(connection);
        if number % (connections / 10) == 0 {
            works(&rider, &mut stream, "while they come").await;
        }
    }
    works(&rider, &mut stream, "while they are there").await;
    for connection in &mut open {
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, connection.read_to_end(&mut answer)).await.expect("it is let go");
    }
    drop(open);
    eventually("all of them are gone", async || {
        (metric(&server, "process_open_fds").await <= before + 20.0).then_some(())
    })
    .await;
    works(&rider, &mut stream, "when they are gone").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_without_end_are_refused_before_they_are_read() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride").await;
    let mut stream = server.live(&driver, "ride").await;
    let before = metric(&server, "process_resident_memory_bytes").await;
    let megabyte = Arc::new(vec![b'a'; 1 << 20]);
    let mut senders = JoinSet::new();
    for number in 0..size(8, 50) {
        let (address, token, megabyte) = (server.address().to_owned(), rider.token.clone(), Arc::clone(&megabyte));
        senders.spawn(async move {
            let mut connection = TcpStream::connect(address).await.unwrap();
            // Half of them say how much it will be; the others send chunks for ever.
            let length = if number % 2 == 0 { "Content-Length: 104857600" } else { "Transfer-Encoding: chunked" };
            let head = format!(
                "POST /api/v1/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{length}\r\n\r\n"
            );
            connection.write_all(head.as_bytes()).await.unwrap();
            let mut taken = 0;
            while taken < 100 {
                let mut part = Vec::new();
                if number % 2 == 1 {
                    part.extend_from_slice(b"100000\r\n");
                }
                part.extend_from_slice(&megabyte);
                part.extend_from_slice(if number % 2 == 1 { b"\r\n" } else { b"" });
                if timeout(PATIENCE, connection.write_all(&part)).await.expect("it is read or refused").is_err() {
                    break;
                }
                taken += 1;
            }
            let mut answer = Vec::new();
            let _ = timeout(PATIENCE, connection.read_to_end(&mut answer)).await.expect("the connection ends");
            assert!(taken < 100, "all of it was taken");
            String::from_utf8_lossy(&answer).into_owned()
        });
    }
    works(&rider, &mut stream, "meanwhile").await;
    for answer in senders.join_all().await {
        // A reset may overtake the answer.
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413"), "{answer}");
    }
    let grown = metric(&server, "process_resident_memory_bytes").await - before;
    assert!(grown < 64.0 * 1024.0 * 1024.0, "{grown} bytes more");
    works(&rider, &mut stream, "after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_tokens_are_refused_however_many_and_leave_nothing_behind() {
    let _turn = two_at_a_time().await;
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride").await;
    let mut stream = server.live(&driver, "ride").await;
    let (all, clients) = (size(20_000, 1_000_000), 16);
    let refused = Arc::new(AtomicUsize::new(0));
    let good = rider.token.clone();
    let before = metric(&server, "process_resident_memory_bytes").await;
    let mut liars = JoinSet::new();
    for client in 0..clients {
        let (base, good, refused) = (server.base.clone(), good.clone(), Arc::clone(&refused));
        liars.spawn(async move {
            let http = reqwest::Client::builder().no_proxy().build().unwrap();
            for number in 0..all / clients {
                let (signed, signature) = good.rsplit_once('.').unwrap();
                // Each another one: of another signature, cut, or with another algorithm in its head.
                let token = match number % 4 {
                    0 => format!("{signed}.{client}x{number}x{}", &signature[8..]),
                    1 => good[..good.len() - 1 - number % 40].to_owned(),
                    2 => format!("eyJhbGciOiJub25lIn0.{}.", signed.split_once('.').unwrap().1),
                    _ => format!("{}{client}-{number}", "A".repeat(number % 3_000)),
                };
                let answer = http.get(format!("{base}/api/v1/rides")).bearer_auth(token).send().await.unwrap();
                assert_eq!(answer.status(), 401);
                answer.bytes().await.unwrap();
                refused.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let mut meanwhile = 0;
    while !liars.is_empty() {
        works(&rider, &mut stream, "meanwhile").await;
        meanwhile += 1;
        while let Some(ended) = liars.try_join_next() {
            ended.unwrap();
        }
    }
    assert!(meanwhile > 10, "{meanwhile}");
    assert_eq!(refused.load(Ordering::Relaxed), all / clients * clients);
    let grown = metric(&server, "process_resident_memory_bytes").await - before;
    assert!(grown < 32.0 * 1024.0 * 1024.0, "{grown} bytes more");
    assert!(!server.log().contains(&good), "no token is logged");
}
