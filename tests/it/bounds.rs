//! Responses are bounded in bytes, and nothing is lost between two of them.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{Database, PATIENCE, Server, User};

/// What a response may have: 256 KiB, and the members around.
const MOST: usize = 300 * 1024;

/// As large as content may be, and twice as large as JSON.
fn large() -> String {
    "\n".repeat(16 * 1024 - 1) + "x"
}

/// A page: whether it is bounded, and itself.
async fn page(user: &User, path: &str) -> Value {
    let answer = user.get(path).await.expect(200);
    assert!(answer.body.len() <= MOST, "{path}: {} bytes", answer.body.len());
    answer.json()
}

fn seqs(list: &Value, name: &str) -> Vec<i64> {
    let seq = |one: &Value| one[name].as_i64().or_else(|| one[name].as_str()?.parse().ok()).unwrap();
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
    assert_eq!(read, all, "the newest first, page by page");

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
async fn a_replay_is_written_in_bounded_pieces() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    for _ in 0..24 {
        rider.send("ride_1", &large()).await;
    }
    // Not from the ring of a topic that somebody reads.
    let mut connection = TcpStream::connect(server.address()).await.unwrap();
    let head = "GET /api/v1/messages/rides/ride_1/events?after=0 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer";
    connection.write_all(format!("{head} {}\r\n\r\n", driver.token).as_bytes()).await.unwrap();
    let mut read = Vec::new();
    let reading = async {
        while read.windows(8).filter(|bytes| bytes == b"\nid: 25\n").count() == 0 {
            assert!(connection.read_buf(&mut read).await.unwrap() > 0);
        }
    };
    timeout(PATIENCE, reading).await.expect("all of it");
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
