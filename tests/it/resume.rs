//! Resuming from a cursor on every transport.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use serde_json::{Value, json};

use crate::support::{Database, Server, Stream, User};

/// Appends events up to seq `upto` to the log of `ride`.
async fn fill(database: &Database, ride: &str, upto: i64) {
    let topic = format!("ride/{ride}");
    let mut client = database.client().await;
    let transaction = client.transaction().await.unwrap();
    transaction.query("select 1 from topics where name = $1 for update", &[&topic]).await.unwrap();
    let events = "insert into events (topic, seq, type, data, created_at)
                  select $1, seq, 'message:new', json_build_object('number', seq)::text, now()
                  from generate_series((select last_seq + 1 from topics where name = $1), $2::bigint) as seq";
    transaction.execute(events, &[&topic, &upto]).await.unwrap();
    transaction.execute("update topics set last_seq = $2 where name = $1", &[&topic, &upto]).await.unwrap();
    transaction.commit().await.unwrap();
}

/// Deletes the events up to seq `upto`, as retention does.
async fn expire_events(database: &Database, ride: &str, upto: i64) {
    let topic = format!("ride/{ride}");
    let deleted = "delete from events where topic = $1 and seq <= $2";
    database.client().await.execute(deleted, &[&topic, &upto]).await.unwrap();
}

#[derive(Debug, Clone, Copy)]
enum Transport {
    LastEventId,
    After,
    Poll,
}

/// Reads `count` events after `cursor` and checks them.
async fn resume(reader: &User, transport: Transport, cursor: i64, count: i64) {
    let wanted = cursor + 1..=cursor + count;
    match transport {
        Transport::LastEventId | Transport::After => {
            let text = cursor.to_string();
            let mut stream = match transport {
                // A browser repeats its original URL. The header takes precedence.
                Transport::LastEventId => reader.stream_from("ride_1", "after=1", Some(&text)).await,
                _ => reader.stream("ride_1", &format!("after={text}")).await,
            };
            let sync = stream.next_sync().await;
            assert_eq!((&sync["cursor"], &sync["resumed"], &sync["gap"]), (&json!(text), &json!(true), &Value::Null));
            for seq in wanted {
                assert_eq!(stream.next_of_type("message:new").await.seq(), seq, "{transport:?} {cursor}");
            }
        }
        Transport::Poll => {
            let mut after = cursor;
            while after < cursor + count {
                let poll = reader.poll("ride_1", &format!("after={after}")).await;
                assert_eq!((&poll["resumed"], &poll["gap"]), (&json!(true), &Value::Null));
                for event in poll["events"].as_array().unwrap() {
                    after += 1;
                    assert_eq!(event["id"], after.to_string(), "{transport:?} {cursor}");
                }
                assert_eq!(poll["cursor"], after.to_string());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_resumptions_at_random_positions_have_no_gap_and_no_repeat() {
    const EVENTS: i64 = 10_000;
    let seed = std::env::var("RIDEWIRE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    #[allow(clippy::print_stderr, reason = "shown when the test fails, to run it again")]
    {
        eprintln!("RIDEWIRE_TEST_SEED={seed}");
    }
    let database = Database::create().await;
    let servers = [Server::start(&database).await, Server::start(&database).await];
    let (rider, _) = servers[0].open_ride("ride_1").await;
    fill(&database, "ride_1", EVENTS).await;

    let (head, done) = (Arc::new(AtomicI64::new(EVENTS)), Arc::new(AtomicBool::new(false)));
    let writer = {
        let users = [rider.on(&servers[0]), rider.on(&servers[1])];
        let (head, done) = (Arc::clone(&head), Arc::clone(&done));
        tokio::spawn(async move {
            for user in users.iter().cycle() {
                let sent = user.send("ride_1", "meanwhile").await;
                head.store(sent["seq"].as_i64().unwrap(), Ordering::Relaxed);
                if done.load(Ordering::Relaxed) {
                    return;
                }
            }
        })
    };
    let readers = (0..8).map(|number| {
        let users = [servers[0].service(), servers[1].service()];
        let head = Arc::clone(&head);
        let mut random = fastrand::Rng::with_seed(seed.wrapping_add(number));
        tokio::spawn(async move {
            for _ in 0..25 {
                let head = head.load(Ordering::Relaxed);
                // Half of the cursors are near the head, where replay and live events meet.
                let cursor = if random.bool() { random.i64(1..head) } else { random.i64(head - 30..=head) };
                // More events than the ring and a page of the log.
                let count = (head - cursor + 10).min(random.i64(1..300));
                let transport = random.choice([Transport::LastEventId, Transport::After, Transport::Poll]).unwrap();
                resume(random.choice(&users).unwrap(), transport, cursor, count).await;
            }
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        reader.await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    writer.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_deleted_by_retention_are_reported_as_a_gap() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    server.open_ride("ride_1").await;
    fill(&database, "ride_1", 30).await;
    expire_events(&database, "ride_1", 10).await;
    let service = server.service();
    for (after, from) in [(0, 1), (3, 4), (9, 10)] {
        let gap = json!({ "from": from, "to": 10 });
        let mut stream = service.stream("ride_1", &format!("after={after}")).await;
        let sync = stream.next_sync().await;
        assert_eq!((&sync["gap"], &sync["resumed"], &sync["cursor"]), (&gap, &json!(false), &json!("10")));
        assert_eq!(stream.next_event().await.seq(), 11);

        let poll = service.poll("ride_1", &format!("after={after}&wait=0")).await;
        assert_eq!((&poll["gap"], &poll["resumed"]), (&gap, &json!(false)));
        // Including the events after it.
        let ids: Vec<_> =
            poll["events"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap()).collect();
        let rest: Vec<_> = (11..=30).map(|seq: i64| seq.to_string()).collect();
        assert_eq!(
            (ids, &poll["cursor"], &poll["hasMore"]),
            (rest.iter().map(String::as_str).collect(), &json!("30"), &json!(false))
        );
        // The gap is returned immediately, also if no event has a matching type.
        let poll = service.poll("ride_1", &format!("after={after}&wait=55&types=message:deleted")).await;
        assert_eq!((&poll["gap"], &poll["events"], &poll["cursor"]), (&gap, &json!([]), &json!("30")));
    }
    // The end of the gap is a valid cursor.
    let mut stream = service.stream_from("ride_1", "", Some("10")).await;
    let sync = stream.next_sync().await;
    assert_eq!((&sync["gap"], &sync["resumed"]), (&Value::Null, &json!(true)));

    // The whole log has expired.
    expire_events(&database, "ride_1", 30).await;
    let mut stream = service.stream("ride_1", "after=12").await;
    let sync = stream.next_sync().await;
    assert_eq!((&sync["gap"], &sync["cursor"]), (&json!({ "from": 13, "to": 30 }), &json!("30")));
    service.send("ride_1", "the next").await;
    assert_eq!(stream.next_of_type("message:new").await.seq(), 31);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_past_the_head_starts_at_the_head() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    rider.send("ride_1", "Hello").await;
    // Once with the ride only in the database, and once with its topic in the hub.
    for _ in 0..2 {
        let mut stream = driver.stream_from("ride_1", "", Some("9000")).await.expect(200);
        let sync = stream.next_sync().await;
        let head = sync["state"]["asOf"].as_i64().unwrap();
        assert_eq!((&sync["resumed"], &sync["cursor"]), (&json!(false), &json!(head.to_string())));
        assert_eq!(sync["gap"], Value::Null);
        let poll = driver.poll("ride_1", "after=9000&wait=0").await;
        assert_eq!((&poll["resumed"], &poll["events"]), (&json!(false), &json!([])));
        let sent = rider.send("ride_1", "again").await;
        assert_eq!(stream.find("message:new").await.seq(), sent["seq"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_id_of_the_first_sync_is_a_valid_cursor() {
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, _) = one.open_ride("ride_1").await;
    rider.send("ride_1", "before").await;
    let mut stream = one.service().stream("ride_1", "").await;
    stream.next_sync().await;
    let id = stream.last_id.clone();
    drop(stream);
    for number in 0..3 {
        rider.send("ride_1", &number.to_string()).await;
    }
    let mut stream = two.service().stream_from("ride_1", "", Some(&id)).await;
    assert_eq!(stream.next_sync().await["resumed"], true);
    for number in 0..3 {
        assert_eq!(stream.next_of_type("message:new").await.data["content"], number.to_string());
    }

    // The id is where the replay begins, so a client that disconnects during the replay loses nothing.
    let mut stream = two.service().stream("ride_1", "after=1").await;
    stream.next_sync().await;
    assert_eq!(stream.last_id, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filtered_stream_moves_its_cursor_past_filtered_events() {
    let database = Database::create().await;
    let server = Server::start_with(&database, &[("RIDEWIRE_HEARTBEAT", "300ms")]).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let service = server.service();
    let mut stream: Stream = service.stream("ride_1", "types=ride:*").await;
    stream.next_sync().await;
    for number in 0..5 {
        rider.send("ride_1", &number.to_string()).await;
    }
    // While the stream is idle, a `stream:sync` moves its cursor past the filtered events.
    let mut last = 1;
    while last < 6 {
        let sync = stream.next_sync().await;
        let cursor: i64 = sync["cursor"].as_str().unwrap().parse().unwrap();
        assert!((last + 1..=6).contains(&cursor) && sync["gap"].is_null(), "{last} {sync}");
        last = cursor;
    }
    driver.set_status("ride_1", "arrived").await.expect(200);
    assert_eq!(stream.next_of_type("ride:status").await.seq(), 7);

    let mut again = service.stream_from("ride_1", "types=ride:*", Some("6")).await;
    assert_eq!(again.next_sync().await["resumed"], true);
    assert_eq!(again.next_of_type("ride:status").await.seq(), 7);
    let mut again = service.stream_from("ride_1", "types=ride:*", Some("1")).await;
    assert_eq!(again.next_sync().await["cursor"], "1");
    assert_eq!(again.next_of_type("ride:status").await.seq(), 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn last_event_id_takes_precedence_over_after_and_an_empty_one_is_ignored() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_1").await;
    for number in 0..5 {
        rider.send("ride_1", &number.to_string()).await;
    }
    let service = server.service();
    let cursor = async |query: &str, id: &str| {
        service.stream_from("ride_1", query, Some(id)).await.next_sync().await["cursor"].clone()
    };
    assert_eq!(cursor("after=0", "4").await, "4");
    assert_eq!(cursor("after=5", "2").await, "2");
    assert_eq!(cursor("after=3", "").await, "3");
    assert_eq!(cursor("", "").await, "6");
}
