//! Polls that wait: their connections are taken over from hyper, and continue with the next request afterwards.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::support::{Database, Server, TIMEOUT, User, eventually};

/// Longer than the server awaits a response before it takes the connection over. On a slow machine hyper may still write the response,
/// which is correct too; [`Connection::taken_over`] counts.
const TAKEN_OVER_AFTER: Duration = Duration::from_millis(200);

/// A connection, and the bytes that were read from it.
struct Connection {
    socket: TcpStream,
    read: Vec<u8>,
    /// How many responses were not written by hyper, which writes the date after the length.
    taken_over: usize,
}

/// A response: the status line and headers in lower case, and the body.
struct RawResponse {
    head: String,
    body: Value,
}

impl Connection {
    async fn open(server: &Server) -> Self {
        Self { socket: TcpStream::connect(server.address()).await.unwrap(), read: Vec::new(), taken_over: 0 }
    }

    async fn send(&mut self, requests: &[String]) {
        self.socket.write_all(requests.concat().as_bytes()).await.unwrap();
    }

    /// Reads more. Returns `false` at the end of the connection.
    async fn read_more(&mut self) -> bool {
        timeout(TIMEOUT, self.socket.read_buf(&mut self.read)).await.expect("bytes, or the end").unwrap() > 0
    }

    /// Reads the next response.
    async fn next(&mut self) -> RawResponse {
        loop {
            let text = String::from_utf8_lossy(&self.read).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let head = head.to_lowercase();
                let length = head.split("content-length: ").nth(1).expect("a length").lines().next().unwrap();
                let length: usize = length.parse().unwrap();
                if body.len() >= length {
                    self.taken_over += usize::from(head.find("date: ") < head.find("content-length: "));
                    self.read.drain(..head.len() + 4 + length);
                    return RawResponse { body: serde_json::from_str(&body[..length]).unwrap(), head };
                }
            }
            assert!(self.read_more().await, "the connection ends with {text:?}");
        }
    }

    async fn ends(&mut self) {
        assert!(!self.read_more().await, "{:?}", String::from_utf8_lossy(&self.read));
    }
}

fn get(user: &User, path: &str, header: &str) -> String {
    format!("GET /api/v1/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n{header}\r\n", user.token)
}

fn poll(user: &User, after: i64, header: &str) -> String {
    get(user, &format!("messages/rides/ride_1/poll?after={after}&wait=55&types=message:new"), header)
}

/// Waits until so many polls wait without hyper.
async fn wait(server: &Server, polls: usize) {
    eventually("the polls wait", async || {
        let metrics = reqwest::get(format!("{}/metrics", server.base)).await.unwrap().text().await.unwrap();
        metrics.contains(&format!("ridewire_connections{{transport=\"poll\"}} {polls}\n")).then_some(())
    })
    .await;
    sleep(TAKEN_OVER_AFTER).await;
}

fn contents(response: &RawResponse) -> Vec<&str> {
    let events = response.body["events"].as_array().unwrap_or_else(|| panic!("{}: {}", response.head, response.body));
    events.iter().map(|event| event["data"]["content"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_continues_with_its_next_request_after_a_poll() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let mut connection = Connection::open(&server).await;
    let ride = || get(&driver, "rides/ride_1", "");
    let mut after = 1;
    for round in 0..3 {
        // The next request arrives together with the poll, while it waits, or after its response.
        let first = [poll(&driver, after, ""), ride()];
        connection.send(if round == 0 { &first } else { &first[..1] }).await;
        wait(&server, 1).await;
        if round == 1 {
            connection.send(&[ride()]).await;
        }
        after = rider.send("ride_1", &format!("message {round}")).await["seq"].as_i64().unwrap();
        let polled = connection.next().await;
        assert_eq!(contents(&polled), [format!("message {round}")]);
        assert!(polled.head.starts_with("http/1.1 200 ok"), "{}", polled.head);
        for header in [
            "content-type: application/json",
            "cache-control: no-store",
            "x-request-id: ",
            "x-content-type-options: nosniff",
        ] {
            assert_eq!(polled.head.matches(header).count(), 1, "{header}: {}", polled.head);
        }
        assert!(!polled.head.contains("connection:"), "{}", polled.head);
        if round == 2 {
            connection.send(&[ride()]).await;
        }
        assert_eq!(connection.next().await.body["rideId"], "ride_1");
    }
    assert!(connection.taken_over > 0, "no poll was taken over");
    connection.send(&[poll(&driver, after, "Connection: Keep-Alive, Close\r\n")]).await;
    wait(&server, 1).await;
    rider.send("ride_1", "last").await;
    let last = connection.next().await;
    assert_eq!(contents(&last), ["last"]);
    assert_eq!(last.head.matches("connection: close").count(), 1, "{}", last.head);
    connection.ends().await;
}

/// hyper reads 8 KiB at a time. After a poll with a larger head, several times as much may be received and unread.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_behind_several_polls_that_wait() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let mut connection = Connection::open(&server).await;
    let large = format!("X-Padding: {}\r\n", "x".repeat(8_700));
    let mut requests = vec![poll(&driver, 1, &large), poll(&driver, 2, ""), poll(&driver, 3, "")];
    requests.extend((0..60).map(|number| get(&driver, "rides/ride_1", &format!("X-Request-Id: {number}\r\n"))));
    connection.send(&requests).await;
    for content in ["first", "second", "third"] {
        wait(&server, 1).await;
        rider.send("ride_1", content).await;
        assert_eq!(contents(&connection.next().await), [content]);
    }
    for number in 0..60 {
        let response = connection.next().await;
        assert!(response.head.contains(&format!("x-request-id: {number}\r\n")), "{number}: {}", response.head);
    }
    assert!(connection.taken_over > 1, "at most one poll was taken over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_that_waits_gets_an_error_like_any_other_request() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let (service, support) = (server.service(), server.support());
    let mut connections = [Connection::open(&server).await, Connection::open(&server).await];
    for (connection, user) in connections.iter_mut().zip([&driver, &support]) {
        connection.send(&[poll(user, 1, "X-Request-Id: its-id\r\n")]).await;
    }
    wait(&server, 2).await;
    service.post_empty("users/driver_1/revoke").await.expect(200);
    let [revoked, supported] = &mut connections;
    let response = revoked.next().await;
    assert!(response.head.starts_with("http/1.1 401 unauthorized"), "{}", response.head);
    let expected = ["content-type: application/problem+json", "www-authenticate: bearer", "x-request-id: its-id"];
    for header in expected {
        assert_eq!(response.head.matches(header).count(), 1, "{header}: {}", response.head);
    }
    assert_eq!((&response.body["code"], &response.body["requestId"]), (&json!("token_revoked"), &json!("its-id")));
    // The same connection may be used with another token.
    revoked.send(&[get(&rider, "rides/ride_1", "")]).await;
    assert_eq!(revoked.next().await.body["rideId"], "ride_1");

    // The poll of support has an entry in the audit log, with its final status.
    rider.send("ride_1", "for support").await;
    assert_eq!(contents(&supported.next().await), ["for support"]);
    eventually("the entry", async || {
        let entries = service.get("audit?limit=200").await.expect(200).json();
        let entry = entries["entries"].as_array()?.iter().find(|entry| entry["action"] == "pollRide")?.clone();
        assert_eq!((&entry["status"], &entry["rideId"]), (&json!(200), &json!("ride_1")));
        Some(())
    })
    .await;
    assert!(revoked.taken_over + supported.taken_over > 0, "no poll was taken over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_responds_to_waiting_polls_and_closes_their_connections() {
    let database = Database::create().await;
    let server = Server::start_with(&database, &[("RIDEWIRE_DRAIN_WINDOW", "1s")]).await;
    let (_, driver) = server.open_ride("ride_1").await;
    let mut connection = Connection::open(&server).await;
    connection.send(&[poll(&driver, 1, "")]).await;
    wait(&server, 1).await;
    let stopping = tokio::spawn(async move { assert!(server.terminate().await.success()) });
    let response = connection.next().await;
    assert_eq!(contents(&response), Vec::<&str>::new());
    connection.ends().await;
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_poll_whose_client_has_gone_is_logged_and_releases_its_connection() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (_, driver) = server.open_ride("ride_1").await;
    let mut connection = Connection::open(&server).await;
    // A next request that is never read does not hide the end of the connection.
    connection.send(&[poll(&driver, 1, "")]).await;
    wait(&server, 1).await;
    connection.send(&[get(&driver, "rides/ride_1", "")]).await;
    drop(connection);
    eventually("the poll ends", async || {
        let metrics = reqwest::get(format!("{}/metrics", server.base)).await.unwrap().text().await.unwrap();
        let route = "method=\"GET\",route=\"/api/v1/messages/rides/{rideId}/poll\",status=\"499\"";
        let is_logged = metrics.contains(&format!("ridewire_http_request_duration_seconds_count{{{route}}} 1\n"));
        (is_logged && metrics.contains("ridewire_connections{transport=\"poll\"} 0\n")).then_some(())
    })
    .await;
}
