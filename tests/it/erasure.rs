//! Erasing a user: which data is erased besides messages, and what stays for other users.

use serde_json::{Value, json};

use crate::support::{Database, Receiver, Reply, Server, Stream, User, eventually};

/// A latitude whose digits occur in no timestamp.
const LAT: f64 = -12.345678912;

/// Returns the rows that contain a word, as (table, row).
async fn rows_with(database: &Database, word: &str) -> Vec<(String, String)> {
    database.dump().await.into_iter().filter(|(_, row)| row.contains(word)).collect()
}

#[track_caller]
fn assert_none(rows: &[(String, String)]) {
    assert!(rows.is_empty(), "{rows:#?}");
}

/// Opens the user's merged stream and reads its `stream:sync`.
async fn merged_stream(user: &User, server: &Server) -> Stream {
    let mut stream = user.on(server).stream_all("", None).await.expect(200);
    stream.next_sync().await;
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erasing_a_user_erases_client_message_ids_also_of_deleted_messages() {
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let mut watching = two.live_stream(&driver, "ride_1").await;
    let kept = rider.send_with_id("ride_1", "Hello", "WORD-kept").await.expect(201).json();
    let deleted = rider.send_with_id("ride_1", "Hello", "WORD-deleted").await.expect(201).json();
    rider.delete_message(&deleted).await.expect(204);
    // Until the user is erased, the `clientMessageId` identifies a repeat.
    rider.send_with_id("ride_1", "Hello", "WORD-deleted").await.expect(200);

    let erased = one.service().delete("users/rider_1").await.expect(200).json();
    assert_eq!(erased, json!({ "userId": "rider_1", "messages": 2 }));
    assert_none(&rows_with(&database, "WORD").await);
    watching.next_of_type("message:new").await;
    watching.next_of_type("message:new").await;
    watching.next_of_type("message:deleted").await;
    for message in [&kept, &deleted] {
        assert_eq!(watching.next_of_type("message:deleted").await.data["messageId"], message["id"]);
    }
    for server in [&one, &two] {
        assert!(!driver.on(server).poll("ride_1", "after=0").await.to_string().contains("WORD"));
        assert!(!driver.on(server).history("ride_1", "").await.to_string().contains("WORD"));
    }
    assert_eq!(one.service().delete("users/rider_1").await.expect(200).json()["messages"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erasing_a_user_removes_reactions_with_events() {
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let support = one.support();
    let message = driver.send("ride_1", "Hello").await;
    let path = |emoji: &str| format!("messages/{}/reactions/{emoji}", message["id"].as_str().unwrap());
    for (user, emoji) in [(&rider, "🦓"), (&rider, "👍"), (&support, "👍"), (&support, "🦓")] {
        user.put(&path(emoji), json!({})).await.expect(204);
    }
    // A `message:edited` event contains the reactions.
    driver.edit(&message, "Hello!").await.expect(200);
    let body = json!({ "metadata": { "number": 13.0 } });
    driver.patch(&format!("messages/{}", message["id"].as_str().unwrap()), body).await.expect(200);
    let mut watching = two.live_stream(&driver, "ride_1").await;

    let service = one.service();
    service.delete("users/rider_1").await.expect(200);
    let event = watching.next_of_type("message:reaction").await.data;
    assert_eq!((&event["userId"], &event["emoji"], &event["removed"]), (&json!("rider_1"), &Value::Null, &json!(true)));
    assert_eq!(event["messageId"], message["id"]);
    let left = json!([{ "emoji": "🦓", "userIds": ["support_1"] }, { "emoji": "👍", "userIds": ["support_1"] }]);
    let in_any_order = |reactions: &Value| {
        let mut sorted: Vec<String> = reactions.as_array().unwrap().iter().map(Value::to_string).collect();
        sorted.sort();
        sorted
    };
    let history = driver.history("ride_1", "").await;
    assert_eq!(in_any_order(&history["messages"][0]["reactions"]), in_any_order(&left));
    for server in [&one, &two] {
        let log = driver.on(server).poll("ride_1", "after=0").await;
        let events = log["events"].as_array().unwrap();
        let edited = events.iter().filter(|event| event["type"] == "message:edited");
        let mut count = 0;
        for event in edited {
            assert_eq!(in_any_order(&event["data"]["reactions"]), in_any_order(&left), "{event}");
            assert_eq!(event["data"]["content"], "Hello!");
            count += 1;
        }
        assert_eq!(count, 2);
        let of_rider = |event: &&Value| event["type"] == "message:reaction" && event["data"]["userId"] == "rider_1";
        for event in events.iter().filter(of_rider) {
            assert_eq!((&event["data"]["emoji"], &event["data"]["removed"]), (&Value::Null, &json!(true)));
        }
    }
    // Support, which is not a participant, is erased too.
    service.delete("users/support_1").await.expect(200);
    assert_none(&rows_with(&database, "🦓").await);
    assert_none(&rows_with(&database, "👍").await);
    let head = database.head("ride_1").await;
    service.delete("users/rider_1").await.expect(200);
    assert_eq!(database.head("ride_1").await, head, "no reaction is left to remove");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erasing_a_user_erases_their_reasons() {
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let mut watching = two.live_stream(&driver, "ride_1").await;
    let mut merged = merged_stream(&driver, &two).await;
    rider.post("rides/ride_1/cancel", json!({ "reason": "WORD of the rider" })).await.expect(200);
    let until = "2999-01-01T00:00:00Z";
    one.support().post("rides/ride_1/reopen", json!({ "until": until })).await.invalid_field("/until");
    let until = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1)).to_string();
    let body = json!({ "until": until, "reason": "WORD of support" });
    one.support().post("rides/ride_1/reopen", body).await.expect(200);
    assert_eq!(watching.next_of_type("ride:cancel").await.data["reason"], "WORD of the rider");
    assert_eq!(watching.next_of_type("ride:reopened").await.data["reason"], "WORD of support");
    merged.find("ride:reopened").await;

    one.service().delete("users/rider_1").await.expect(200);
    assert_none(&rows_with(&database, "WORD of the rider").await);
    assert!(!rows_with(&database, "WORD of support").await.is_empty());
    one.service().delete("users/support_1").await.expect(200);
    assert_none(&rows_with(&database, "WORD").await);
    for server in [&one, &two] {
        let driver = driver.on(server);
        eventually("the rings are dropped", async || {
            let polls = [driver.poll("ride_1", "after=0").await, driver.poll_all("after=0").await];
            polls.iter().all(|poll| !poll.to_string().contains("WORD")).then_some(())
        })
        .await;
        let log = driver.poll("ride_1", "after=0").await;
        let cancelled = log["events"].as_array().unwrap().iter().find(|event| event["type"] == "ride:cancel").unwrap();
        assert_eq!(cancelled["data"]["by"], "rider_1");
        assert_eq!(cancelled["data"]["ride"]["status"], "cancelled");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erasing_a_user_deletes_their_topic_on_every_replica_without_a_later_gap() {
    let database = Database::create().await;
    // Only a NOTIFY hint can reach the other replica in time.
    let settings = [("RIDEWIRE_FALLBACK_POLL", "1h")];
    let (one, two) = (Server::start_with(&database, &settings).await, Server::start_with(&database, &settings).await);
    let service = one.service();
    let (rider, bystander) = (one.rider("rider_1"), one.rider("bystander"));
    let mut stream = merged_stream(&rider, &two).await;
    let mut other = merged_stream(&bystander, &two).await;
    for number in 0..3 {
        service.broadcast(&["rider_1"], json!({ "WORD": number })).await.expect(202);
        stream.next_of_type("notice").await;
    }
    let cursor = stream.last_id.clone();
    assert!(rider.on(&two).poll_all("after=0").await.to_string().contains("WORD"));

    service.delete("users/rider_1").await.expect(200);
    assert_none(&rows_with(&database, "WORD").await);
    let topics = database.client().await.query("select from topics where name like 'user/%'", &[]).await.unwrap();
    assert!(topics.is_empty());
    for server in [&one, &two] {
        let rider = rider.on(server);
        eventually("no event is in memory", async || {
            let poll = rider.poll_all("after=0&wait=0").await;
            assert_eq!(poll["gap"], Value::Null, "{poll}");
            poll["events"].as_array().unwrap().is_empty().then_some(())
        })
        .await;
    }
    // The open streams continue. So do a resumed stream and the stream of a user without a topic.
    let mut resumed = rider.on(&two).stream_all("", Some(&cursor)).await.expect(200);
    let sync = resumed.next_sync().await;
    assert_eq!((&sync["gap"], &sync["resumed"]), (&Value::Null, &json!(true)));
    service.broadcast(&["rider_1", "bystander"], json!({ "again": true })).await.expect(202);
    for stream in [&mut stream, &mut other, &mut resumed] {
        assert_eq!(stream.next_of_type("notice").await.data["data"], json!({ "again": true }));
    }
    let cursor = stream.last_id.clone();
    service.broadcast(&["rider_1"], json!({ "last": true })).await.expect(202);
    let polled = rider.on(&one).poll_all(&format!("after={cursor}")).await;
    assert_eq!((&polled["gap"], &polled["events"][0]["data"]["data"]), (&Value::Null, &json!({ "last": true })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_notify_a_replica_finds_an_erasure_by_polling() {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_NOTIFY", "off"), ("RIDEWIRE_FALLBACK_POLL", "200ms")];
    let (one, two) = (Server::start_with(&database, &settings).await, Server::start_with(&database, &settings).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let mut watching = two.live_stream(&driver, "ride_1").await;
    rider.post("rides/ride_1/cancel", json!({ "reason": "WORD" })).await.expect(200);
    watching.next_of_type("ride:cancel").await;
    one.service().delete("users/rider_1").await.expect(200);
    eventually("the ring is dropped", async || {
        let log = driver.on(&two).poll("ride_1", "after=0").await;
        (!log.to_string().contains("WORD")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erasing_a_driver_removes_their_location_and_presence() {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_PRESENCE_GRACE", "200ms")];
    let (one, two) = (Server::start_with(&database, &settings).await, Server::start_with(&database, &settings).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let mut watching = two.live_stream(&rider, "ride_1").await;
    let mut dispatch = merged_stream(&two.support(), &two).await;
    drop(one.live_stream(&driver, "ride_1").await);
    driver.put("drivers/me/availability", json!({ "available": true, "lat": LAT, "lng": 8.5 })).await.expect(200);
    driver.post("rides/ride_1/location", json!({ "lat": LAT, "lng": 8.5 })).await.expect(202);
    watching.find("ride:location").await;
    assert_eq!(dispatch.find("driver:availability").await.data["lat"], LAT);
    eventually("the driver is offline", async || {
        let presence = rider.get("messages/rides/ride_1/presence").await.expect(200).json();
        let driver = presence["participants"].as_array().unwrap().iter().find(|one| one["userId"] == "driver_1");
        driver.is_some_and(|driver| driver["online"] == false && driver["since"].is_string()).then_some(())
    })
    .await;

    one.service().delete("users/driver_1").await.expect(200);
    // The availability may have ended before, with the presence.
    let event = loop {
        let event = dispatch.find("driver:availability").await.data;
        if event["lat"].is_null() {
            break event;
        }
    };
    assert_eq!(event["available"], false);
    assert_none(&rows_with(&database, &LAT.to_string()).await);
    let presence = rider.get("messages/rides/ride_1/presence").await.expect(200).json();
    let of_driver =
        presence["participants"].as_array().unwrap().iter().find(|one| one["userId"] == "driver_1").unwrap();
    assert_eq!((&of_driver["online"], &of_driver["since"]), (&json!(false), &Value::Null));
    // A merged stream gets the latest-only values of a new ride from memory.
    let mut attempt = 0;
    eventually("the value is dropped", async || {
        attempt += 1;
        let mut merged = rider.on(&two).stream_all("after=0", None).await.expect(200);
        merged.next_sync().await;
        one.service().broadcast(&["rider_1"], json!({ "attempt": attempt })).await.expect(202);
        let mut has_location = false;
        loop {
            let event = merged.next_event().await;
            has_location |= event.kind == "ride:location";
            if event.kind == "notice" && event.data["data"]["attempt"] == attempt {
                break;
            }
        }
        (!has_location).then_some(())
    })
    .await;
    rider.get("rides/ride_1/location").await.problem(404, "location_unknown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erasing_a_user_removes_their_events_from_the_feed_and_pending_deliveries() {
    let database = Database::create().await;
    let receiver = Receiver::start(|_| Reply::Status(500)).await;
    let settings = [
        ("RIDEWIRE_WEBHOOK_ALLOW_HOSTS", "127.0.0.1"),
        ("RIDEWIRE_WEBHOOK_RETRIES", "1h"),
        ("RIDEWIRE_PUSH_AFTER", "200ms"),
    ];
    let server = Server::start_with(&database, &settings).await;
    let service = server.service();
    let body = json!({ "url": format!("{}/hook", receiver.base) });
    let webhook = service.post("webhooks", body).await.expect(201).json();
    let (_, driver) = server.open_ride("ride_1").await;
    driver.send("ride_1", "Are you there?").await;
    service.broadcast(&["rider_1"], json!({ "WORD": 1 })).await.expect(202);
    let undelivered = async || {
        let poll = service.get("feed/poll?after=0&types=message:undelivered&wait=0").await.expect(200).json();
        poll["events"].as_array().unwrap().iter().filter(|event| event["data"]["data"]["userId"] == "rider_1").count()
    };
    eventually("the message is reported", async || (undelivered().await == 1).then_some(())).await;
    let path = format!("webhooks/{}/deliveries?state=pending&limit=200", webhook["id"].as_str().unwrap());
    eventually("deliveries are pending", async || {
        let deliveries = service.get(&path).await.expect(200).json();
        let types: Vec<_> =
            deliveries["deliveries"].as_array().unwrap().iter().map(|delivery| delivery["type"].clone()).collect();
        (types.contains(&json!("notice")) && types.contains(&json!("message.undelivered"))).then_some(())
    })
    .await;

    service.delete("users/rider_1").await.expect(200);
    assert_none(&rows_with(&database, "WORD").await);
    let of_topic = rows_with(&database, "user/rider_1").await;
    assert_none(&of_topic);
    let of_feed = rows_with(&database, "message:undelivered").await;
    assert_none(&of_feed.into_iter().filter(|(_, row)| row.contains("rider_1")).collect::<Vec<_>>());
    // After another message the erased user is not reported again, although the watermark has not moved.
    let begin = service.get("feed/poll").await.expect(200).json()["cursor"].clone();
    driver.send("ride_1", "Hello?").await;
    let (rider, _) = server.open_ride("ride_2").await;
    let marker = rider.send("ride_2", "a marker").await;
    let query = format!("feed/poll?after={}&types=message:undelivered&wait=0", begin.as_str().unwrap());
    let reported = eventually("a later message is reported", async || {
        let events = service.get(&query).await.expect(200).json()["events"].as_array().unwrap().clone();
        let has_marker = events.iter().any(|event| event["data"]["data"]["messageId"] == marker["id"]);
        has_marker.then_some(events)
    })
    .await;
    assert!(reported.iter().all(|event| event["data"]["data"]["userId"] != "rider_1"), "{reported:#?}");
}
