//! The event stream of a ride.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::metrics::scrape;
use crate::support::{Database, PATIENCE, Server, Stream, eventually, within_a_limit};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_reaches_the_streams_of_every_replica() {
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, driver) = one.open_ride("ride_123").await;
    let mut streams = [one.live(&driver, "ride_123").await, two.live(&driver, "ride_123").await];
    let sent = rider.send("ride_123", "Hello").await;
    for stream in &mut streams {
        let event = stream.next_of("message:new").await;
        assert_eq!(event.data, sent);
        assert_eq!(event.seq(), sent["seq"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_says_at_once_that_it_is_open_where_it_begins_and_how_things_are() {
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
    assert!(stream.comments >= 1, "a comment goes out at once");
    assert_eq!(stream.retries.len(), 1);
    assert!((100..=60_000).contains(&stream.retries[0]), "{:?}", stream.retries);
    assert_eq!(stream.last_id, "2");
    assert_eq!((&sync["cursor"], &sync["resumed"], &sync["gap"]), (&json!("2"), &json!(false), &Value::Null));
    let state = &sync["state"];
    assert_eq!(state["asOf"], 2);
    assert_eq!(state["ride"], driver.get("rides/ride_1").await.expect(200).json());
    assert_eq!((&state["location"], &state["typing"]), (&Value::Null, &json!([])));
    let mut people: Vec<_> = state["participants"].as_array().unwrap().iter().map(|one| &one["userId"]).collect();
    people.sort_by_key(|name| name.to_string());
    assert_eq!(people, [&json!("driver_1"), &json!("rider_1")]);
    for person in state["participants"].as_array().unwrap() {
        assert!(person["online"].is_boolean() && person.get("since").is_some(), "{person}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_of_coming_back_differs_from_client_to_client() {
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
async fn everyone_sees_what_two_replicas_write_at_once_in_one_order() {
    const EACH: i64 = 100;
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let service = one.service();
    let mut streams = vec![one.live(&service, "ride_1").await, two.live(&service, "ride_1").await];
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
            let event = stream.next_of("message:new").await;
            assert_eq!(event.seq(), seq);
            events.push(event.data);
        }
        seen.push(events);
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(seen[0] == seen[1] && seen[1] == seen[2]);
    // Each sender's own order is kept.
    let of_rider = seen[0].iter().filter(|message| message["senderId"] == "rider_1").count() as i64;
    assert_eq!(of_rider, 2 * EACH);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn types_choose_what_is_sent() {
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
    rider.erase(&sent).await.expect(204);
    driver.set_status("ride_1", "arrived").await.expect(200);
    for (stream, (filter, kinds)) in streams.iter_mut().zip(filters) {
        for kind in &kinds {
            assert_eq!(stream.next_event().await.kind, *kind, "{filter}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_filled_with_comments() {
    let database = Database::create().await;
    let (often, never) = (("RIDEWIRE_HEARTBEAT", "200ms"), ("RIDEWIRE_HEARTBEAT", "1h"));
    let (one, two) = (Server::with(&database, &[often]).await, Server::with(&database, &[never]).await);
    let (_, driver) = one.open_ride("ride_1").await;
    one.live(&driver, "ride_1").await.next_comment(PATIENCE).await;
    // Only what the reader chooses can bring one there.
    let mut stream = driver.on(&two).stream("ride_1", "heartbeat=5").await;
    stream.next_sync().await;
    stream.next_comment(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_and_polls_end_with_their_token() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (_, driver) = server.open_ride("ride_1").await;
    let (mut stream, polling) = within_a_limit("a stream and a poll begin with a brief token", async |ttl| {
        let brief = driver.clone().for_another(ttl);
        let mut stream = brief.stream("ride_1", "").await;
        let is_open = stream.status == 200 && stream.try_next().await.is_some_and(|event| event.kind == "stream:sync");
        let polling = tokio::spawn(async move { brief.get("messages/rides/ride_1/poll?after=1&wait=55").await });
        let polls = async || scrape(&server).await.get(r#"ridewire_open{transport="poll"}"#).copied().unwrap_or(0.0);
        while !polling.is_finished() && polls().await == 0.0 {
            sleep(Duration::from_millis(10)).await;
        }
        (is_open && !polling.is_finished()).then_some((stream, polling))
    })
    .await;
    let events = stream.until_end().await;
    assert_eq!(events.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), ["auth:expired"]);
    assert!(events[0].id.is_none(), "it is no place in the log");
    assert!(events[0].data["reason"].is_string());
    let polled = polling.await.unwrap().expect(200).json();
    assert_eq!((&polled["events"], &polled["cursor"]), (&json!([]), &json!("1")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_who_does_not_read_delays_nobody_and_misses_nothing() {
    const MESSAGES: i64 = 1_000;
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let service = server.service();
    let mut slow = server.live(&service, "ride_1").await;
    let mut quick = server.live(&service, "ride_1").await;
    // Far more than the sockets' buffers take.
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
        assert_eq!(quick.next_of("message:new").await.seq(), seq);
    }
    for writer in writing {
        writer.await.unwrap();
    }
    for seq in 2..2 + MESSAGES {
        let event = slow.next_of("message:new").await;
        assert_eq!(event.seq(), seq);
        assert_eq!(event.data["content"], text);
    }
}

/// A connection is more than its stream: what came before on it was answered, and what comes after is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_on_a_connection_that_was_used_before_is_its_last_answer() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let mut connection = TcpStream::connect(server.address()).await.unwrap();
    let request = |path: &str| {
        let token = &driver.token;
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n")
    };
    // Both at once, and more after them, which nobody is to answer.
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
        timeout(PATIENCE, reading).await.unwrap_or_else(|_| panic!("no {what}"));
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
    // A chunk is as long as it says.
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
    eventually("it is noticed", async || {
        let metrics = reqwest::get(format!("{}/metrics", server.base)).await.unwrap().text().await.unwrap();
        let is_none = |transport| metrics.contains(&format!("ridewire_open{{transport=\"{transport}\"}} 0\n"));
        (is_none("sse") && is_none("poll")).then_some(())
    })
    .await;
}

/// Both where the socket was taken over from hyper (a stream of HTTP/1.1) and where hyper has it: a client that closes its
/// sending side looks like one that has gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_closes_its_sending_side_is_cut_off_at_once() {
    let database = Database::create().await;
    // No heartbeat may be what finds out.
    let server = Server::with(&database, &[("RIDEWIRE_HEARTBEAT", "10m")]).await;
    let (_, driver) = server.open_ride("ride_1").await;
    for (path, version, is_stream) in
        [("events", "HTTP/1.1", true), ("events", "HTTP/1.0", true), ("poll?after=1&wait=55", "HTTP/1.1", false)]
    {
        let mut connection = TcpStream::connect(server.address()).await.unwrap();
        let head = format!("GET /api/v1/messages/rides/ride_1/{path} {version}\r\nHost: x\r\nAuthorization: Bearer");
        connection.write_all(format!("{head} {}\r\n\r\n", driver.token).as_bytes()).await.unwrap();
        let mut read = Vec::new();
        // The end of the first frame.
        while is_stream && !String::from_utf8_lossy(&read).contains("}\n\n") {
            assert!(timeout(PATIENCE, connection.read_buf(&mut read)).await.expect("a frame").unwrap() > 0);
        }
        if !is_stream {
            eventually("it waits", async || {
                let metrics = reqwest::get(format!("{}/metrics", server.base)).await.unwrap().text().await.unwrap();
                metrics.contains("ridewire_open{transport=\"poll\"} 1\n").then_some(())
            })
            .await;
        }
        connection.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, connection.read_to_end(&mut rest)).await.expect("it ends");
        let rest = String::from_utf8_lossy(&rest);
        // Cut short, so that nobody takes it for the end; and the poll is not answered.
        assert!(!rest.ends_with("0\r\n\r\n") && !rest.contains("HTTP/1.1"), "{path}: {rest}");
        none_is_open(&server).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_ends_says_so_and_one_that_is_cut_does_not() {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_DRAIN_WINDOW", "1s")];
    let (ending, dying) = (Server::with(&database, &settings).await, Server::start(&database).await);
    let (_, driver) = ending.open_ride("ride_1").await;
    let open = async |server: &Server| {
        let mut connection = TcpStream::connect(server.address()).await.unwrap();
        let head = "GET /api/v1/messages/rides/ride_1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer";
        connection.write_all(format!("{head} {}\r\n\r\n", driver.token).as_bytes()).await.unwrap();
        let mut begun = vec![0; 64];
        connection.read_exact(&mut begun).await.unwrap();
        connection
    };
    let (mut ended, mut cut) = (open(&ending).await, open(&dying).await);
    assert!(ending.terminate().await.success());
    dying.kill().await;
    let last = async |connection: &mut TcpStream| {
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, connection.read_to_end(&mut rest)).await.expect("it ends");
        String::from_utf8(rest).unwrap()
    };
    // RFC 9112, section 7.1: the chunk of length 0.
    let (ended, cut) = (last(&mut ended).await, last(&mut cut).await);
    assert!(ended.contains("stream:closing") && ended.ends_with("\r\n0\r\n\r\n"), "{ended}");
    assert!(!cut.contains("stream:closing") && !cut.ends_with("0\r\n\r\n"), "{cut}");
}
