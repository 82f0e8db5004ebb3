//! The merged stream and poll: all events of a user.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{Database, Event, Server, Stream, User, data_types};

/// Opens a merged stream that begins now, and reads its `stream:sync`.
async fn live(user: &User) -> Stream {
    let mut stream = user.stream_all("", None).await.expect(200);
    stream.next_sync().await;
    stream
}

/// Returns the type and the ride of an event.
fn type_and_ride(event: &Event) -> (String, String) {
    let ride = event.data["rideId"].as_str().or(event.data["ride"]["rideId"].as_str());
    (event.kind.clone(), ride.unwrap_or_default().to_owned())
}

async fn next_type_and_ride(stream: &mut Stream) -> (String, String) {
    type_and_ride(&stream.next_event().await)
}

fn expected(kind: &str, ride: &str) -> (String, String) {
    (kind.to_owned(), ride.to_owned())
}

/// The compared types. Delivery receipts, which reading itself creates, are left out.
const TYPES: &str = "types=message:new,ride:*,notice";

/// Reads all events after a cursor by polls and by a stream, and asserts that both are equal.
async fn read_after(user: &User, service: &User, cursor: &str) -> Vec<Event> {
    let (mut polled, mut after) = (Vec::new(), cursor.to_owned());
    loop {
        let page = user.poll_all(&format!("after={after}&wait=0&{TYPES}")).await;
        assert_eq!((&page["resumed"], &page["gap"]), (&json!(true), &Value::Null), "{page}");
        polled.extend(page["events"].as_array().unwrap().iter().map(|event| event["data"].clone()));
        after = page["cursor"].as_str().unwrap().to_owned();
        if page["hasMore"] == json!(false) {
            break;
        }
    }
    let mut stream = user.stream_all(TYPES, Some(cursor)).await.expect(200);
    let sync = stream.next_sync().await;
    assert_eq!((&sync["resumed"], &sync["gap"]), (&json!(true), &Value::Null), "{sync}");
    let mut events = Vec::new();
    while events.len() < polled.len() {
        events.push(stream.next_event().await);
    }
    let end = service.broadcast(&[&user.name], json!({ "end": cursor })).await;
    end.expect(202);
    assert_eq!(stream.next_of_type("notice").await.data["data"]["end"], cursor);
    // The order between topics is not specified. Other tests check the order within a topic.
    let sorted = |mut all: Vec<Value>| {
        all.sort_by_key(Value::to_string);
        all
    };
    assert_eq!(sorted(events.iter().map(|event| event.data.clone()).collect()), sorted(polled));
    events.retain(|event| event.data["data"]["end"].is_null());
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rides_join_and_leave_a_merged_stream_without_a_reconnect() {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_CHAT_GRACE", "1s")];
    let (one, two) = (Server::start_with(&database, &settings).await, Server::start_with(&database, &settings).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let mut stream = rider.on(&two).stream_all("", None).await.expect(200);
    let sync = stream.next_sync().await;
    assert_eq!(sync["state"]["rides"]["ride_1"]["asOf"], 1, "{sync}");
    assert_eq!((&sync["resumed"], &sync["gap"]), (&json!(false), &Value::Null));

    let hello = driver.send("ride_1", "Hello").await;
    let event = stream.next_of_type("message:new").await;
    assert_eq!(event.data, hello);
    one.service().put_ride("ride_2", "rider_1", Some("driver_2")).await.expect(201);
    let assigned = stream.next_of_type("ride:assigned").await;
    assert_eq!((&assigned.data["ride"]["rideId"], &assigned.data["fromSeq"]), (&json!("ride_2"), &json!(1)));
    let participants = stream.next_of_type("ride:participants").await;
    assert_eq!(participants.data["ride"]["rideId"], "ride_2");
    one.driver("driver_2").send("ride_2", "Here").await;
    assert_eq!(next_type_and_ride(&mut stream).await, expected("message:new", "ride_2"));
    driver.post_empty("rides/ride_1/cancel").await.expect(200);
    assert_eq!(next_type_and_ride(&mut stream).await, expected("ride:cancel", "ride_1"));
    let closed = stream.next_of_type("ride:closed").await;
    assert_eq!(closed.data, json!({ "rideId": "ride_1", "lastSeq": 3, "reason": "ride_over" }));

    // The location of the other participant.
    let location = json!({ "lat": 1, "lng": 2 });
    one.driver("driver_2").post("rides/ride_2/location", location).await.expect(202);
    assert_eq!(next_type_and_ride(&mut stream).await, expected("ride:location", "ride_2"));
    one.service().broadcast(&["rider_1", "nobody"], json!({ "text": "Rain" })).await.expect(202);
    let notice = stream.next_of_type("notice").await.data;
    assert_eq!(
        (&notice["type"], &notice["data"], &notice["by"]),
        (&json!("test"), &json!({"text": "Rain"}), &json!("platform"))
    );
    let last = stream.last_id.clone();
    drop(stream);

    // Delivered events are not repeated. Closed rides are not in the state.
    assert_eq!(read_after(&rider, &one.service(), &last).await, Vec::new());
    let polled = rider.on(&two).poll_all("").await;
    assert_eq!((&polled["events"], &polled["hasMore"]), (&json!([]), &json!(false)));
    let rides: Vec<_> = polled["state"]["rides"].as_object().unwrap().keys().collect();
    assert_eq!(rides, ["ride_2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumed_merged_stream_replays_rides_that_began_and_ended_in_order() {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_CHAT_GRACE", "1s")];
    let server = Server::start_with(&database, &settings).await;
    let service = server.service();
    let (rider, driver) = server.open_ride("kept").await;
    service.put_ride("lost", "rider_2", Some("driver_1")).await.expect(201);
    let mut stream = live(&driver).await;
    rider.send("kept", "one").await;
    server.rider("rider_2").send("lost", "two").await;
    let seen = [stream.next_event().await, stream.next_event().await];
    let cursor = seen[1].id.clone().unwrap();
    drop(stream);

    // The driver loses one ride, gets a ride that is closed, and gets a ride that stays open.
    server.rider("rider_2").send("lost", "three").await;
    service.put_ride("lost", "rider_2", Some("driver_2")).await.expect(200);
    server.rider("rider_2").send("lost", "not visible").await;
    service.put_ride("brief", "rider_3", Some("driver_1")).await.expect(201);
    server.rider("rider_3").send("brief", "four").await;
    server.rider("rider_3").post_empty("rides/brief/cancel").await.expect(200);
    crate::support::eventually("the ride is closed", async || {
        let client = database.client().await;
        let row =
            client.query_one("select count(*) from events where type = 'ride:closed' and topic = 'user/rider_3'", &[]);
        (row.await.unwrap().get::<_, i64>(0) == 1).then_some(())
    })
    .await;
    service.put_ride("new", "rider_4", Some("driver_1")).await.expect(201);
    rider.send("kept", "five").await;

    let events = read_after(&driver, &service, &cursor).await;
    let of_ride = |wanted: &str| -> Vec<String> {
        let found = events.iter().filter(|event| type_and_ride(event).1 == wanted);
        found.map(|event| format!("{} {}", event.kind, event.data["content"].as_str().unwrap_or(""))).collect()
    };
    assert_eq!(of_ride("lost"), ["message:new three", "ride:participants ", "ride:closed "]);
    assert_eq!(
        of_ride("brief"),
        ["ride:assigned ", "ride:participants ", "message:new four", "ride:cancel ", "ride:closed "]
    );
    assert_eq!(of_ride("new"), ["ride:assigned ", "ride:participants "]);
    assert_eq!(of_ride("kept"), ["message:new five"]);
    assert_eq!(events.len(), 3 + 5 + 2 + 1);

    // Each cursor returns the remaining events.
    for (index, event) in events.iter().enumerate() {
        let mut after: Vec<_> = read_after(&driver, &service, event.id.as_deref().unwrap()).await;
        let mut expected = events[index + 1..].to_vec();
        after.sort_by_key(|event| event.text.clone());
        expected.sort_by_key(|event| event.text.clone());
        let texts = |events: &[Event]| events.iter().map(|event| event.text.clone()).collect::<Vec<_>>();
        assert_eq!(texts(&after), texts(&expected), "after event {index}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_merged_stream_of_support_has_a_ride_only_as_long_as_support_participates() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (service, support) = (server.service(), server.support());
    let (rider, driver) = server.open_ride("ride_1").await;
    driver.post("rides/ride_1/location", json!({"lat": 52.5, "lng": 13.4})).await.expect(202);
    rider.send("ride_1", "before").await;
    let cursor = support.poll_all("").await["cursor"].as_str().unwrap().to_owned();
    let mut open = support.stream_all(TYPES, None).await.expect(200);
    open.next_sync().await;
    service.put_ride("ride_1", "rider_1", Some(&support.name)).await.expect(200);
    rider.send("ride_1", "for support").await;
    service.put_ride("ride_1", "rider_1", Some("driver_1")).await.expect(200);
    rider.send("ride_1", "after").await;
    service.broadcast(&[&support.name], json!({"end": true})).await.expect(202);

    // Not the location, which the driver sent before support participated.
    let expected = ["ride:assigned", "ride:participants", "message:new", "ride:participants", "ride:closed", "notice"];
    let mut resumed = support.stream_all(TYPES, Some(&cursor)).await.expect(200);
    let state = resumed.next_sync().await["state"]["rides"].clone();
    assert_eq!(state, json!({}), "support does not participate any more");
    for stream in [&mut open, &mut resumed] {
        let mut received = Vec::new();
        while received.last().is_none_or(|kind| kind != "notice") {
            let event = stream.next_event().await;
            assert_ne!(event.data["content"], "after");
            received.push(event.kind);
        }
        assert_eq!(received, expected);
    }
    // Neither stream has the ride any more. On its own stream, support still sees everything.
    rider.send("ride_1", "later").await;
    service.broadcast(&[&support.name], json!({"end": true})).await.expect(202);
    for stream in [&mut open, &mut resumed] {
        assert_eq!(stream.next_event().await.kind, "notice");
    }
    let mut own = support.stream_from("ride_1", "types=message:new", Some("0")).await.expect(200);
    own.next_sync().await;
    for content in ["before", "for support", "after", "later"] {
        assert_eq!(own.next_of_type("message:new").await.data["content"], content);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_and_reassigned_driver_sees_only_the_events_of_their_intervals() {
    let database = Database::create().await;
    let one = Server::start(&database).await;
    // A replica that finds events only by polling.
    let polling_only = [("RIDEWIRE_NOTIFY", "off"), ("RIDEWIRE_FALLBACK_POLL", "200ms")];
    let two = Server::start_with(&database, &polling_only).await;
    let service = one.service();
    let (rider, driver) = one.open_ride("ride_1").await;
    let first = rider.send("ride_1", "for the first").await;
    let mut merged = live(&driver.on(&two)).await;
    let mut own = two.live_stream(&driver, "ride_1").await;
    let cursor = driver.poll_all("").await["cursor"].as_str().unwrap().to_owned();
    // The replica is suspended meanwhile, so it finds all events in one poll.
    two.signal(Signal::SIGSTOP);
    service.put_ride("ride_1", "rider_1", Some("driver_2")).await.expect(200);
    rider.send("ride_1", "for the second").await;
    service.put_ride("ride_1", "rider_1", Some("driver_1")).await.expect(200);
    rider.send("ride_1", "for the first again").await;
    two.signal(Signal::SIGCONT);

    // The ride's stream: the driver is replaced at 3 and assigned again at 5.
    let seen = [own.next_event().await, own.next_event().await, own.next_event().await];
    assert_eq!(seen.each_ref().map(Event::seq), [3, 5, 6], "{seen:?}");
    // The cursor acknowledges delivery in the first interval. The `message:delivered` event may follow immediately.
    let polled = driver.poll("ride_1", "after=2&wait=0").await;
    let polled = polled["events"].as_array().unwrap().iter().filter(|event| event["type"] != "message:delivered");
    assert_eq!(polled.map(|event| event["id"].as_str().unwrap()).collect::<Vec<_>>(), ["3", "5", "6"]);

    for _ in 0..5 {
        let event = merged.next_event().await;
        assert!(!event.text.contains("for the second"), "{event:?}");
        if event.data["content"] == "for the first again" {
            break;
        }
    }
    let events = read_after(&driver, &service, &cursor).await;
    let on_ride: Vec<_> =
        events.iter().filter(|event| event.kind != "ride:assigned" && event.kind != "ride:closed").collect();
    let kinds: Vec<_> = on_ride.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["ride:participants", "ride:participants", "message:new"], "{events:?}");
    assert!(!events.iter().any(|event| event.text.contains("for the second")), "{events:?}");
    assert_eq!(first["seq"], 2);
    // From the beginning of the log.
    let all = read_after(&driver, &service, "0").await;
    let contents: Vec<_> =
        all.iter().filter(|event| event.kind == "message:new").map(|event| event.data["content"].clone()).collect();
    assert_eq!(contents, ["for the first", "for the first again"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_events_are_reported_per_topic() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    server.service().put_ride("ride_2", "rider_1", Some("driver_1")).await.expect(201);
    let cursor = rider.poll_all("").await["cursor"].as_str().unwrap().to_owned();
    for n in 0..6 {
        driver.send("ride_1", &format!("one {n}")).await;
        driver.send("ride_2", &format!("two {n}")).await;
    }
    let client = database.client().await;
    client.execute("delete from events where topic = 'ride/ride_1' and seq <= 4", &[]).await.unwrap();
    client.execute("delete from events where topic = 'ride/ride_2' and seq <= 3", &[]).await.unwrap();

    let mut stream = rider.stream_all("types=message:new", Some(&cursor)).await.expect(200);
    let mut gaps = Vec::new();
    let mut contents = Vec::new();
    while contents.len() < 7 {
        let event = stream.next_event().await;
        match event.kind.as_str() {
            "stream:sync" => {
                assert_eq!(event.data["resumed"], false);
                gaps.push(event.data["gap"].clone());
            }
            _ => contents.push(event.data["content"].as_str().unwrap().to_owned()),
        }
    }
    gaps.sort_by_key(|gap| gap["topic"].to_string());
    assert_eq!(
        gaps,
        [json!({"topic": "ride/ride_1", "from": 2, "to": 4}), json!({"topic": "ride/ride_2", "from": 2, "to": 3})]
    );
    contents.sort();
    assert_eq!(contents, ["one 3", "one 4", "one 5", "two 2", "two 3", "two 4", "two 5"]);
    // Each poll reports one gap; the poll with the last gap has events too.
    let from = cursor.clone();
    let (mut cursor, mut gaps, mut events) = (cursor, 0, 0);
    for _ in 0..3 {
        let polled = rider.poll_all(&format!("after={cursor}&wait=0&types=message:new")).await;
        gaps += usize::from(!polled["gap"].is_null());
        assert_eq!(polled["resumed"] == json!(true), polled["gap"].is_null());
        events += polled["events"].as_array().unwrap().len();
        cursor = polled["cursor"].as_str().unwrap().to_owned();
    }
    assert_eq!((gaps, events), (2, 7));
    let first = rider.poll_all(&format!("after={from}&wait=0&types=message:new")).await;
    assert_eq!((first["gap"].is_object(), &first["events"], &first["hasMore"]), (true, &json!([]), &json!(true)));
    let next = first["cursor"].as_str().unwrap();
    let second = rider.poll_all(&format!("after={next}&wait=0&types=message:new")).await;
    assert_eq!((second["gap"].is_object(), second["events"].as_array().unwrap().len()), (true, 7), "{second}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merged_poll_waits_for_matching_events_and_pages_existing_ones() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let first = rider.poll_all("").await;
    let cursor = first["cursor"].as_str().unwrap();
    let waiting = {
        let (user, query) = (rider.clone(), format!("after={cursor}&wait=20&types=message:new"));
        tokio::spawn(async move { user.poll_all(&query).await })
    };
    // Other types and new rides do not wake the poll.
    server.service().put_ride("ride_2", "rider_1", Some("driver_1")).await.expect(201);
    driver.send("ride_2", "there").await;
    let polled = waiting.await.unwrap();
    assert_eq!(data_types(&polled["events"]), ["message:new"], "{polled}");
    assert_eq!(polled["events"][0]["data"]["rideId"], "ride_2");

    for ride in ["ride_1", "ride_2"] {
        futures_util::future::join_all((0..300).map(|n| {
            let (driver, ride) = (driver.clone(), ride.to_owned());
            async move { driver.send(&ride, &n.to_string()).await }
        }))
        .await;
    }
    let first = rider.poll_all(&format!("after={}&wait=0", polled["cursor"].as_str().unwrap())).await;
    assert_eq!(first["hasMore"], true);
    let (mut cursor, mut seen) = (polled["cursor"].as_str().unwrap().to_owned(), Vec::new());
    loop {
        let page = rider.poll_all(&format!("after={cursor}&wait=0&types=message:new")).await;
        let events = page["events"].as_array().unwrap();
        assert!(events.len() <= 500);
        seen.extend(
            events.iter().map(|event| (event["data"]["rideId"].to_string(), event["data"]["seq"].as_i64().unwrap())),
        );
        cursor = page["cursor"].as_str().unwrap().to_owned();
        if page["hasMore"] == json!(false) && events.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), 600);
    for ride in ["\"ride_1\"", "\"ride_2\""] {
        let seqs: Vec<_> = seen.iter().filter(|(of, _)| of == ride).map(|(_, seq)| *seq).collect();
        assert_eq!(seqs.len(), 300);
        assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "{ride}: {seqs:?}");
    }
    // A cursor acknowledges delivery on each ride.
    driver.poll_all("").await;
    crate::support::eventually("the deliveries", async || {
        let state = driver.poll_all("").await["state"]["rides"].clone();
        let watermarks: Vec<_> = ["ride_1", "ride_2"]
            .iter()
            .map(|ride| {
                let receipts = state[ride]["receipts"].as_array().unwrap().clone();
                receipts.into_iter().find(|receipt| receipt["userId"] == "rider_1").unwrap()["deliveredSeq"]
                    .as_i64()
                    .unwrap()
            })
            .collect();
        (watermarks.iter().all(|watermark| *watermark >= 300)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_or_foreign_cursors_and_ride_tickets_are_rejected() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let others = driver.poll_all("").await["cursor"].as_str().unwrap().to_owned();
    for cursor in ["x", "1", "-1", "%C3%BF", &others, &"A".repeat(5_000)] {
        for path in ["poll", "events"] {
            let rejected = rider.get(&format!("{path}?after={cursor}")).await;
            assert_eq!(rejected.problem(400, "invalid_request")["errors"][0]["pointer"], "after");
        }
    }
    let request = rider.request(reqwest::Method::GET, "events").header("last-event-id", "nonsense");
    let rejected = rider.execute(request).await.problem(400, "invalid_request");
    assert_eq!(rejected["errors"][0]["pointer"], "Last-Event-ID");
    let ticket = async |body: Value| {
        rider.post("stream-tickets", body).await.expect(201).json()["ticket"].as_str().unwrap().to_owned()
    };
    let anonymous = rider.clone().with_token("");
    let one = ticket(json!({ "rideId": "ride_1" })).await;
    anonymous.get(&format!("events?ticket={one}")).await.problem(403, "forbidden");
    anonymous.get(&format!("poll?ticket={one}")).await.problem(403, "forbidden");
    let all = ticket(json!({})).await;
    let mut stream = anonymous.stream_all(&format!("ticket={all}"), None).await.expect(200);
    assert!(stream.next_sync().await["state"]["rides"]["ride_1"].is_object());
    anonymous.get(&format!("poll?ticket={all}")).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merged_stream_makes_its_user_online_on_each_ride() {
    let database = Database::create().await;
    let server = Server::start_with(&database, &[("RIDEWIRE_PRESENCE_GRACE", "1s")]).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let mut watching = server.live_stream(&rider, "ride_1").await;
    watching.includes_presence = true;
    let stream = live(&driver).await;
    let online = watching.next_of_type("presence:online").await;
    assert_eq!(online.data["userId"], "driver_1");
    drop(stream);
    assert_eq!(watching.next_of_type("presence:offline").await.data["userId"], "driver_1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merged_stream_prefers_rides_that_have_not_ended() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let service = server.service();
    for n in 0..70 {
        service.put_ride(&format!("ride_{n}"), "rider_1", None).await.expect(201);
    }
    for n in 60..70 {
        service.set_status(&format!("ride_{n}"), "cancelled").await.expect(200);
    }
    let rider = server.rider("rider_1");
    let state = rider.poll_all("").await["state"]["rides"].clone();
    let state = state.as_object().unwrap();
    assert_eq!(state.len(), 64);
    assert!((0..60).all(|n| state.contains_key(&format!("ride_{n}"))), "{:?}", state.keys());
    // The cursor of 64 rides fits into a header and can be resumed.
    let mut stream = live(&rider).await;
    service.put_ride("ride_7", "rider_1", Some("driver_1")).await.expect(200);
    let event = stream.next_of_type("ride:participants").await;
    assert!(event.id.as_ref().is_some_and(|id| id.len() < 4_096));
    assert_eq!(read_after(&rider, &service, event.id.as_deref().unwrap()).await.len(), 1, "the acceptance");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broadcast_reaches_thousands_of_users_and_an_invalid_one_none() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let service = server.service();
    let users: Vec<String> = (0..10_000).map(|n| format!("user_{n:0>59}")).collect();
    let body = |users: &[String]| json!({ "userIds": users, "data": { "text": "Hello" } });
    let response = service.post("broadcasts", body(&users)).await.expect(202).json();
    assert_eq!(response, json!({ "count": 10_000 }));
    for user in [&users[0], &users[9_999]] {
        let polled = server.rider(user).poll_all("after=0&wait=0").await;
        assert_eq!(data_types(&polled["events"]), ["notice"]);
        assert_eq!(polled["events"][0]["data"]["type"], Value::Null);
    }
    let twice = [users[0].clone(), users[0].clone()];
    assert_eq!(service.post("broadcasts", body(&twice)).await.expect(202).json(), json!({ "count": 1 }));

    let before = database.contents().await;
    let mut too_many = users.clone();
    too_many.push("one_more".to_owned());
    let cases = [
        (body(&too_many), "/userIds"),
        (body(&[]), "/userIds"),
        (json!({ "userIds": ["ok", "not ok"], "data": {} }), "/userIds"),
        (json!({ "data": {} }), "/userIds"),
        (json!({ "userIds": ["ok"] }), "/data"),
        (json!({ "userIds": ["ok"], "data": 5 }), "/data"),
        (json!({ "userIds": ["ok"], "data": { "a": "x".repeat(9_000) } }), "/data"),
        (json!({ "userIds": ["ok"], "data": { "a": "\u{0}" } }), "/data"),
        (json!({ "userIds": ["ok"], "data": {}, "type": "" }), "/type"),
        (json!({ "userIds": ["ok"], "data": {}, "type": "x".repeat(65) }), "/type"),
        (json!({ "userIds": ["ok"], "data": {}, "other": 1 }), "/other"),
    ];
    for (body, pointer) in cases {
        let rejected = service.post("broadcasts", body).await;
        assert_eq!(rejected.problem(400, "invalid_request")["errors"][0]["pointer"], pointer);
    }
    for user in [server.rider("rider_1"), server.driver("driver_1"), server.support()] {
        user.broadcast(&["rider_1"], json!({})).await.problem(403, "forbidden");
    }
    assert_eq!(database.contents().await, before);
}
