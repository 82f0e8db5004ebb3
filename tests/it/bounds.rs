//! Byte limits of responses: each response is bounded, and the pages together are complete.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::metrics::scrape;
use crate::support::{Database, Server, TIMEOUT, User, eventually};

/// The maximum size of a response: 256 KiB of items and the other members.
const MAX_RESPONSE: usize = 300 * 1024;

/// Returns content of the maximum size. JSON escapes double it.
fn large() -> String {
    "\n".repeat(16 * 1024 - 1) + "x"
}

/// Gets a page and asserts its size.
async fn page(user: &User, path: &str) -> Value {
    let response = user.get(path).await.expect(200);
    assert!(response.body.len() <= MAX_RESPONSE, "{path}: {} bytes", response.body.len());
    response.json()
}

fn seqs(list: &Value, name: &str) -> Vec<i64> {
    let seq = |entry: &Value| entry[name].as_i64().or_else(|| entry[name].as_str()?.parse().ok()).unwrap();
    list.as_array().unwrap().iter().map(seq).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_polls_and_lists_are_bounded_in_bytes_and_complete_over_their_pages() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    for _ in 0..24 {
        rider.send("ride_1", &large()).await;
    }
    let all: Vec<i64> = (2..=25).collect();

    let (mut read, mut edge) = (Vec::new(), String::new());
    loop {
        let page = page(&driver, &format!("messages/rides/ride_1?limit=200{edge}")).await;
        let part = seqs(&page["messages"], "seq");
        edge = format!("&before={}", part[0]);
        read.splice(..0, part);
        if page["hasMore"] == false {
            break;
        }
    }
    assert_eq!(read, all, "pages, newest first");

    let (mut read, mut edge) = (Vec::new(), 0);
    loop {
        let page = page(&driver, &format!("messages/rides/ride_1?limit=200&after={edge}")).await;
        read.extend(seqs(&page["messages"], "seq"));
        edge = *read.last().unwrap();
        if page["hasMore"] == false {
            break;
        }
    }
    assert_eq!(read, all);

    for path in ["messages/rides/ride_1/poll", "poll"] {
        let (mut read, mut cursor) = (Vec::new(), "0".to_owned());
        loop {
            let page = page(&driver, &format!("{path}?after={cursor}&types=message:new&wait=0")).await;
            let events = page["events"].as_array().unwrap();
            read.extend(events.iter().map(|event| event["data"]["seq"].as_i64().unwrap()));
            cursor = page["cursor"].as_str().unwrap().to_owned();
            if page["hasMore"] == false {
                break;
            }
        }
        assert_eq!(read, all, "{path}");
    }

    for number in 2..=14 {
        server.open_ride(&format!("ride_{number}")).await;
        rider.send(&format!("ride_{number}"), &large()).await;
    }
    let (mut read, mut edge) = (0, String::new());
    loop {
        let page = page(&driver, &format!("rides?limit=200{edge}")).await;
        read += page["rides"].as_array().unwrap().len();
        if page["hasMore"] == false {
            break;
        }
        edge = format!("&before={}", page["next"].as_str().unwrap());
    }
    assert_eq!(read, 14);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_is_written_in_bounded_chunks() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    for _ in 0..24 {
        rider.send("ride_1", &large()).await;
    }
    // No other reader keeps the topic in memory: the replay reads the log, not the ring.
    let mut connection = TcpStream::connect(server.address()).await.unwrap();
    let head = "GET /api/v1/messages/rides/ride_1/events?after=0 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer";
    connection.write_all(format!("{head} {}\r\n\r\n", driver.token).as_bytes()).await.unwrap();
    let mut read = Vec::new();
    let reading = async {
        while read.windows(8).filter(|bytes| bytes == b"\nid: 25\n").count() == 0 {
            assert!(connection.read_buf(&mut read).await.unwrap() > 0);
        }
    };
    timeout(TIMEOUT, reading).await.expect("the whole replay");
    let head = read.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    let (mut chunks, mut rest) = (0, &read[head + 4..]);
    while let Some(end) = rest.windows(2).position(|bytes| bytes == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        assert!(size <= 128 * 1024, "a chunk of {size} bytes");
        chunks += 1;
        rest = rest.get(end + 2 + size + 2..).unwrap_or_default();
    }
    assert!(chunks > 5, "{chunks} chunks");
}

/// Opens a connection that sends the request `times` times and reads nothing.
async fn unread(server: &Server, user: &User, path: &str, times: usize) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut connection = socket.connect(server.address().parse().unwrap()).await.unwrap();
    let request = format!("GET /api/v1/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n", user.token);
    connection.write_all(request.repeat(times).as_bytes()).await.unwrap();
    connection
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_counts_until_its_client_has_the_response() {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_STREAMS_PER_USER", "1"), ("RIDEWIRE_WRITE_TIMEOUT", "1h")];
    let server = Server::start_with(&database, &settings).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    for _ in 0..10 {
        rider.send("ride_1", &large()).await;
    }
    // More bytes than the socket buffers hold. Each poll waits for the previous response, which counts until it is sent.
    let stuck = unread(&server, &driver, "messages/rides/ride_1/poll?after=0&wait=0", 100).await;
    // The metric is read without polls, which would use the user's limit.
    let open = async || scrape(&server).await[r#"ridewire_connections{transport="poll"}"#];
    eventually("the poll stays counted", async || {
        for _ in 0..20 {
            if open().await != 1.0 {
                return None;
            }
        }
        Some(())
    })
    .await;
    driver.get("messages/rides/ride_1/poll").await.problem(429, "too_many_requests");
    drop(stuck);
    eventually("no poll is counted", async || (open().await == 0.0).then_some(())).await;
    driver.get("messages/rides/ride_1/poll").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_clients_are_disconnected_when_others_need_the_memory() {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_MEMORY", "16MiB"), ("RIDEWIRE_WRITE_TIMEOUT", "1h")];
    let server = Server::start_with(&database, &settings).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    for _ in 0..10 {
        rider.send("ride_1", &large()).await;
    }
    // A quarter of the memory is 4 MiB: 16 responses.
    let mut stuck = Vec::new();
    eventually("the oldest connections are closed", async || {
        if stuck.len() < 60 {
            for path in ["messages/rides/ride_1?limit=200", "messages/rides/ride_1/poll?after=0&wait=0"] {
                stuck.push(unread(&server, &driver, path, 50).await);
            }
        }
        let samples = scrape(&server).await;
        assert!(samples["ridewire_http_buffered_bytes"] < 8.0 * 1024.0 * 1024.0, "{samples:#?}");
        (samples[r#"ridewire_limit_rejections_total{limit="memory_eviction"}"#] > 0.0).then_some(())
    })
    .await;
    // Other clients are served: immediately, or after a stalled connection has been closed.
    eventually("a message and its page", async || {
        let sent = rider.send_with_id("ride_1", "Hello", "one").await;
        let page = driver.get("messages/rides/ride_1?limit=1").await;
        (sent.status.is_success() && page.status == 200 && page.json()["messages"][0]["content"] == "Hello")
            .then_some(())
    })
    .await;
    drop(stuck);
    eventually("no response is buffered", async || {
        (scrape(&server).await["ridewire_http_buffered_bytes"] < 1e5).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_steady_body_without_end_is_ended_by_its_deadline() {
    let database = Database::create().await;
    let server =
        Server::start_with(&database, &[("RIDEWIRE_BODY_DEADLINE", "2s"), ("RIDEWIRE_BODY_TIMEOUT", "10m")]).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let mut connection = TcpStream::connect(server.address()).await.unwrap();
    let head = format!("POST /api/v1/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n", rider.token);
    connection.write_all(format!("{head}Content-Length: 60000\r\n\r\n{{").as_bytes()).await.unwrap();
    let (mut from, mut to) = connection.into_split();
    let writing = tokio::spawn(async move {
        let mut pace = tokio::time::interval(Duration::from_millis(50));
        while to.write_all(b" ").await.is_ok() {
            pace.tick().await;
        }
    });
    let mut response = vec![0; 12];
    timeout(TIMEOUT, from.read_exact(&mut response)).await.expect("a response").unwrap();
    assert_eq!(response, b"HTTP/1.1 400");
    assert_eq!(scrape(&server).await[r#"ridewire_limit_rejections_total{limit="body_deadline"}"#], 1.0);
    let _ = timeout(TIMEOUT, from.read_to_end(&mut Vec::new())).await.expect("the connection ends");
    writing.abort();
}
