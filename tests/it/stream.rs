//! The event stream of a ride.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::metrics::scrape;
use crate::support::{Database, Server, Stream, TIMEOUT, eventually, retry_with_longer_limit};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_reaches_the_streams_of_every_replica() {
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, driver) = one.open_ride("ride_123").await;
    let mut streams = [one.live_stream(&driver, "ride_123").await, two.live_stream(&driver, "ride_123").await];
    let sent = rider.send("ride_123", "Hello").await;
    for stream in &mut streams {
        let event = stream.next_of_type("message:new").await;
        assert_eq!(event.data, sent);
        assert_eq!(event.seq(), sent["seq"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_begins_with_a_comment_its_cursor_and_the_state() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    rider.send("ride_1", "Hello").await;
    let mut stream = driver.stream("ride_1", "").await;
    assert_eq!(stream.status, 200);
    assert_eq!(stream.headers["content-type"], "text/event-stream");
    assert_eq!(stream.headers["cache-control"], "no-store");
    assert_eq!(stream.headers["x-accel-buffering"], "no");
    assert!(!stream.headers.contains_key("content-encoding"));
    assert!(!stream.headers.contains_key("content-length"));
    let sync = stream.next_sync().await;
    assert!(stream.comments >= 1, "a comment is sent immediately");
    assert_eq!(stream.retries.len(), 1);
    assert!((100..=60_000).contains(&stream.retries[0]), "{:?}", stream.retries);
    assert_eq!(stream.last_id, "2");
    assert_eq!((&sync["cursor"], &sync["resumed"], &sync["gap"]), (&json!("2"), &json!(false), &Value::Null));
    let state = &sync["state"];
    assert_eq!(state["asOf"], 2);
    assert_eq!(state["ride"], driver.get("rides/ride_1").await.expect(200).json());
    assert_eq!((&state["location"], &state["typing"]), (&Value::Null, &json!([])));
    let mut participants: Vec<_> = state["participants"].as_array().unwrap().iter().map(|one| &one["userId"]).collect();
    participants.sort_by_key(|name| name.to_string());
    assert_eq!(participants, [&json!("driver_1"), &json!("rider_1")]);
    for person in state["participants"].as_array().unwrap() {
        assert!(person["online"].is_boolean() && person.get("since").is_some(), "{person}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reconnect_delay_has_jitter() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (_, driver) = server.open_ride("ride_1").await;
    let mut retries = std::collections::BTreeSet::new();
    for _ in 0..10 {
        let mut stream = driver.stream("ride_1", "").await;
        stream.next_sync().await;
        retries.extend(stream.retries);
    }
    assert!(retries.len() > 1, "{retries:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_readers_see_concurrent_writes_of_two_replicas_in_one_order() {
    const EACH: i64 = 100;
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let service = one.service();
    let mut streams = vec![one.live_stream(&service, "ride_1").await, two.live_stream(&service, "ride_1").await];
    let writers = [rider.on(&one), rider.on(&two), driver.on(&one), driver.on(&two)].map(|user| {
        tokio::spawn(async move {
            for number in 0..EACH {
                user.send("ride_1", &number.to_string()).await;
            }
        })
    });
    let mut seen: Vec<Vec<Value>> = Vec::new();
    streams.push(two.service().stream("ride_1", "after=1").await);
    streams[2].next_sync().await;
    for stream in &mut streams {
        let mut events = Vec::new();
        for seq in 2..2 + 4 * EACH {
            let event = stream.next_of_type("message:new").await;
            assert_eq!(event.seq(), seq);
            events.push(event.data);
        }
        seen.push(events);
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(seen[0] == seen[1] && seen[1] == seen[2]);
    // The order of each sender is kept.
    let of_rider = seen[0].iter().filter(|message| message["senderId"] == "rider_1").count() as i64;
    assert_eq!(of_rider, 2 * EACH);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_types_parameter_filters_events() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let filters = [
        ("types=message:new", vec!["message:new"]),
        ("types=message:*", vec!["message:new", "message:edited", "message:deleted"]),
        ("types=ride:status,message:deleted", vec!["message:deleted", "ride:status"]),
        ("types=nonsense,ride:*", vec!["ride:status"]),
        ("types=*", vec!["message:new", "message:edited", "message:deleted", "ride:status"]),
        ("", vec!["message:new", "message:edited", "message:deleted", "ride:status"]),
    ];
    let service = server.service();
    let mut streams: Vec<Stream> = Vec::new();
    for (filter, _) in &filters {
        let mut stream = service.stream("ride_1", filter).await;
        stream.next_sync().await;
        streams.push(stream);
    }
    let sent = rider.send("ride_1", "Hello").await;
    rider.edit(&sent, "Hello!").await.expect(200);
    rider.delete_message(&sent).await.expect(204);
    driver.set_status("ride_1", "arrived").await.expect(200);
    for (stream, (filter, kinds)) in streams.iter_mut().zip(filters) {
        for kind in &kinds {
            assert_eq!(stream.next_event().await.kind, *kind, "{filter}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_stream_gets_heartbeat_comments() {
    let database = Database::create().await;
    let (often, never) = (("RIDEWIRE_HEARTBEAT", "200ms"), ("RIDEWIRE_HEARTBEAT", "1h"));
    let (one, two) = (Server::start_with(&database, &[often]).await, Server::start_with(&database, &[never]).await);
    let (_, driver) = one.open_ride("ride_1").await;
    one.live_stream(&driver, "ride_1").await.next_comment(TIMEOUT).await;
    // Only the filter can cause a `stream:sync` there.
    let mut stream = driver.on(&two).stream("ride_1", "heartbeat=5").await;
    stream.next_sync().await;
    stream.next_comment(TIMEOUT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_and_polls_end_when_their_token_expires() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (_, driver) = server.open_ride("ride_1").await;
    let (mut stream, polling) =
        retry_with_longer_limit("a stream and a poll start before the token expires", async |ttl| {
            let short_lived = driver.clone().with_token_ttl(ttl);
            let mut stream = short_lived.stream("ride_1", "").await;
            let is_open =
                stream.status == 200 && stream.try_next().await.is_some_and(|event| event.kind == "stream:sync");
            let polling =
                tokio::spawn(async move { short_lived.get("messages/rides/ride_1/poll?after=1&wait=55").await });
            let polls =
                async || scrape(&server).await.get(r#"ridewire_connections{transport="poll"}"#).copied().unwrap_or(0.0);
            while !polling.is_finished() && polls().await == 0.0 {
                sleep(Duration::from_millis(10)).await;
            }
            (is_open && !polling.is_finished()).then_some((stream, polling))
        })
        .await;
    let events = stream.until_end().await;
    assert_eq!(events.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), ["auth:expired"]);
    assert!(events[0].id.is_none(), "a control event has no id");
    assert!(events[0].data["reason"].is_string());
    let polled = polling.await.unwrap().expect(200).json();
    assert_eq!((&polled["events"], &polled["cursor"]), (&json!([]), &json!("1")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_delays_no_other_and_misses_nothing() {
    const MESSAGES: i64 = 1_000;
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let service = server.service();
    let mut slow = server.live_stream(&service, "ride_1").await;
    let mut fast = server.live_stream(&service, "ride_1").await;
    // Much more than the socket buffers hold.
    let text = "🚕".repeat(3_900);
    let writing = (0..20).map(|_| {
        let (rider, text) = (rider.clone(), text.clone());
        tokio::spawn(async move {
            for _ in 0..MESSAGES / 20 {
                rider.send("ride_1", &text).await;
            }
        })
    });
    let writing: Vec<_> = writing.collect();
    for seq in 2..2 + MESSAGES {
        assert_eq!(fast.next_of_type("message:new").await.seq(), seq);
    }
    for writer in writing {
        writer.await.unwrap();
    }
    for seq in 2..2 + MESSAGES {
        let event = slow.next_of_type("message:new").await;
        assert_eq!(event.seq(), seq);
        assert_eq!(event.data["content"], text);
    }
}

/// A connection may carry requests before the stream, but none after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_on_a_reused_connection_is_its_last_response() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let mut connection = TcpStream::connect(server.address()).await.unwrap();
    let request = |path: &str| {
        let token = &driver.token;
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n")
    };
    // Two pipelined requests, and a third one that must get no response.
    let stream = request("/api/v1/messages/rides/ride_1/events?types=message:new");
    let pipelined = [request("/api/v1/rides/ride_1"), stream, request("/api/v1/rides")].concat();
    connection.write_all(pipelined.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    let mut until = async |what: &str, connection: &mut TcpStream| {
        let reading = async {
            while !String::from_utf8_lossy(&read).contains(what) {
                assert!(
                    connection.read_buf(&mut read).await.unwrap() > 0,
                    "{what}: {}",
                    String::from_utf8_lossy(&read)
                );
            }
        };
        timeout(TIMEOUT, reading).await.unwrap_or_else(|_| panic!("no {what}"));
        String::from_utf8_lossy(&read).into_owned()
    };
    // The end of the first chunk.
    let begun = until("}\n\n\r\n", &mut connection).await;
    let (ride, stream) = begun.split_at(begun.rfind("HTTP/1.1 200 OK").unwrap());
    assert!(ride.starts_with("HTTP/1.1 200 OK") && ride.contains(r#""rideId":"ride_1""#), "{begun}");
    let (head, body) = stream.split_once("\r\n\r\n").unwrap();
    let head = head.to_lowercase();
    for header in ["content-type: text/event-stream", "cache-control: no-store", "transfer-encoding: chunked", "date: "]
    {
        assert!(head.contains(header), "{header}: {head}");
    }
    assert!(head.contains("connection: close") && head.contains("x-request-id: "), "{head}");
    // Each chunk has the length that it states.
    let (size, chunk) = body.split_once("\r\n").unwrap();
    let size = usize::from_str_radix(size, 16).unwrap();
    assert!(chunk.starts_with(":\n\n") && chunk.get(size..).is_some_and(|rest| rest.starts_with("\r\n")), "{body:?}");
    rider.send("ride_1", "to the stream").await;
    let whole = until("to the stream", &mut connection).await;
    assert_eq!(whole.matches("HTTP/1.1").count(), 2, "{whole}");
    drop(connection);
    none_is_open(&server).await;
}

/// Waits until no stream or poll is open.
async fn none_is_open(server: &Server) {
    eventually("the disconnect is detected", async || {
        let metrics = reqwest::get(format!("{}/metrics", server.base)).await.unwrap().text().await.unwrap();
        let is_none = |transport| metrics.contains(&format!("ridewire_connections{{transport=\"{transport}\"}} 0\n"));
        (is_none("sse") && is_none("poll")).then_some(())
    })
    .await;
}

/// Checks both implementations: over HTTP/1.1 the socket is taken over from hyper, over HTTP/1.0 it is not. A client that half-closes its
/// connection counts as disconnected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_half_closes_its_connection_is_disconnected_immediately() {
    let database = Database::create().await;
    // No heartbeat is sent meanwhile that would detect it.
    let server = Server::start_with(&database, &[("RIDEWIRE_HEARTBEAT", "10m")]).await;
    let (_, driver) = server.open_ride("ride_1").await;
    for (path, version, is_stream) in [
        ("events", "HTTP/1.1", true),
        ("events", "HTTP/1.0", true),
        ("poll?after=1&wait=55", "HTTP/1.1", false),
        ("poll?after=1&wait=55", "HTTP/1.0", false),
    ] {
        let mut connection = TcpStream::connect(server.address()).await.unwrap();
        let head = format!("GET /api/v1/messages/rides/ride_1/{path} {version}\r\nHost: x\r\nAuthorization: Bearer");
        connection.write_all(format!("{head} {}\r\n\r\n", driver.token).as_bytes()).await.unwrap();
        let mut read = Vec::new();
        // The end of the first frame.
        while is_stream && !String::from_utf8_lossy(&read).contains("}\n\n") {
            assert!(timeout(TIMEOUT, connection.read_buf(&mut read)).await.expect("a frame").unwrap() > 0);
        }
        if !is_stream {
            eventually("it waits", async || {
                let metrics = reqwest::get(format!("{}/metrics", server.base)).await.unwrap().text().await.unwrap();
                metrics.contains("ridewire_connections{transport=\"poll\"} 1\n").then_some(())
            })
            .await;
        }
        connection.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let _ = timeout(TIMEOUT, connection.read_to_end(&mut rest)).await.expect("it ends");
        let rest = String::from_utf8_lossy(&rest);
        // The stream is truncated, so it does not look complete. The poll gets no response.
        assert!(!rest.ends_with("0\r\n\r\n") && !rest.contains("HTTP/1.1"), "{path}: {rest}");
        none_is_open(&server).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_ends_has_its_final_chunk_and_a_cut_one_does_not() {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_DRAIN_WINDOW", "1s")];
    let (ending, killed) = (Server::start_with(&database, &settings).await, Server::start(&database).await);
    let (_, driver) = ending.open_ride("ride_1").await;
    let open = async |server: &Server| {
        let mut connection = TcpStream::connect(server.address()).await.unwrap();
        let head = "GET /api/v1/messages/rides/ride_1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer";
        connection.write_all(format!("{head} {}\r\n\r\n", driver.token).as_bytes()).await.unwrap();
        let mut begun = vec![0; 64];
        connection.read_exact(&mut begun).await.unwrap();
        connection
    };
    let (mut ended, mut cut) = (open(&ending).await, open(&killed).await);
    assert!(ending.terminate().await.success());
    killed.kill().await;
    let last = async |connection: &mut TcpStream| {
        let mut rest = Vec::new();
        let _ = timeout(TIMEOUT, connection.read_to_end(&mut rest)).await.expect("it ends");
        String::from_utf8(rest).unwrap()
    };
    // RFC 9112, section 7.1: the chunk of length 0.
    let (ended, cut) = (last(&mut ended).await, last(&mut cut).await);
    assert!(ended.contains("stream:closing") && ended.ends_with("\r\n0\r\n\r\n"), "{ended}");
    assert!(!cut.contains("stream:closing") && !cut.ends_with("0\r\n\r\n"), "{cut}");
}
