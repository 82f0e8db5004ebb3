//! The erasure of a user: what goes beside their messages, and what stays as it was for everybody else.

use serde_json::{Value, json};

use crate::support::{Database, Receiver, Reply, Server, Stream, User, eventually};

/// A latitude that is no part of any time.
const LAT: f64 = -12.345678912;

/// The rows of the database that have a word, by table.
async fn rows_with(database: &Database, word: &str) -> Vec<(String, String)> {
    database.dump().await.into_iter().filter(|(_, row)| row.contains(word)).collect()
}

#[track_caller]
fn has_none(rows: &[(String, String)]) {
    assert!(rows.is_empty(), "{rows:#?}");
}

/// A stream of everything of the user's, past its `stream:sync`.
async fn all(user: &User, server: &Server) -> Stream {
    let mut stream = user.on(server).stream_all("", None).await.expect(200);
    stream.next_sync().await;
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erased_users_names_for_messages_go_also_of_those_that_they_had_deleted() {
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let mut watching = two.live(&driver, "ride_1").await;
    let kept = rider.send_named("ride_1", "Hello", "WORD-kept").await.expect(201).json();
    let deleted = rider.send_named("ride_1", "Hello", "WORD-deleted").await.expect(201).json();
    rider.erase(&deleted).await.expect(204);
    // A repeat is decided by the name, as long as its sender is there.
    rider.send_named("ride_1", "Hello", "WORD-deleted").await.expect(200);

    let erased = one.service().delete("users/rider_1").await.expect(200).json();
    assert_eq!(erased, json!({ "userId": "rider_1", "messages": 2 }));
    has_none(&rows_with(&database, "WORD").await);
    watching.next_of("message:new").await;
    watching.next_of("message:new").await;
    watching.next_of("message:deleted").await;
    for message in [&kept, &deleted] {
        assert_eq!(watching.next_of("message:deleted").await.data["messageId"], message["id"]);
    }
    for server in [&one, &two] {
        assert!(!driver.on(server).poll("ride_1", "after=0").await.to_string().contains("WORD"));
        assert!(!driver.on(server).history("ride_1", "").await.to_string().contains("WORD"));
    }
    assert_eq!(one.service().delete("users/rider_1").await.expect(200).json()["messages"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erased_users_reactions_go_and_others_are_told() {
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let support = one.support();
    let message = driver.send("ride_1", "Hello").await;
    let path = |emoji: &str| format!("messages/{}/reactions/{emoji}", message["id"].as_str().unwrap());
    for (user, emoji) in [(&rider, "🦓"), (&rider, "👍"), (&support, "👍"), (&support, "🦓")] {
        user.put(&path(emoji), json!({})).await.expect(204);
    }
    // What is edited tells of the reactions that there are.
    driver.edit(&message, "Hello!").await.expect(200);
    let body = json!({ "metadata": { "number": 13.0 } });
    driver.patch(&format!("messages/{}", message["id"].as_str().unwrap()), body).await.expect(200);
    let mut watching = two.live(&driver, "ride_1").await;

    let service = one.service();
    service.delete("users/rider_1").await.expect(200);
    let told = watching.next_of("message:reaction").await.data;
    assert_eq!((&told["userId"], &told["emoji"], &told["removed"]), (&json!("rider_1"), &Value::Null, &json!(true)));
    assert_eq!(told["messageId"], message["id"]);
    let left = json!([{ "emoji": "🦓", "userIds": ["support_1"] }, { "emoji": "👍", "userIds": ["support_1"] }]);
    let in_any_order = |reactions: &Value| {
        let mut all: Vec<String> = reactions.as_array().unwrap().iter().map(Value::to_string).collect();
        all.sort();
        all
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
    // Staff, who is on no ride, as well.
    service.delete("users/support_1").await.expect(200);
    has_none(&rows_with(&database, "🦓").await);
    has_none(&rows_with(&database, "👍").await);
    let head = database.head("ride_1").await;
    service.delete("users/rider_1").await.expect(200);
    assert_eq!(database.head("ride_1").await, head, "there is nothing left to take back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reasons_that_an_erased_user_gave_go() {
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let mut watching = two.live(&driver, "ride_1").await;
    let mut everything = all(&driver, &two).await;
    rider.post("rides/ride_1/cancel", json!({ "reason": "WORD of the rider" })).await.expect(200);
    let until = "2999-01-01T00:00:00Z";
    one.support().post("rides/ride_1/reopen", json!({ "until": until })).await.wrong_field("/until");
    let until = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1)).to_string();
    let body = json!({ "until": until, "reason": "WORD of support" });
    one.support().post("rides/ride_1/reopen", body).await.expect(200);
    assert_eq!(watching.next_of("ride:cancel").await.data["reason"], "WORD of the rider");
    assert_eq!(watching.next_of("ride:reopened").await.data["reason"], "WORD of support");
    everything.find("ride:reopened").await;

    one.service().delete("users/rider_1").await.expect(200);
    has_none(&rows_with(&database, "WORD of the rider").await);
    assert!(!rows_with(&database, "WORD of support").await.is_empty());
    one.service().delete("users/support_1").await.expect(200);
    has_none(&rows_with(&database, "WORD").await);
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
async fn an_erased_users_topic_goes_from_every_replica_and_a_new_one_has_no_gap() {
    let database = Database::create().await;
    // Only a hint can tell the other replica in time.
    let settings = [("RIDEWIRE_FALLBACK_POLL", "1h")];
    let (one, two) = (Server::with(&database, &settings).await, Server::with(&database, &settings).await);
    let service = one.service();
    let (rider, bystander) = (one.rider("rider_1"), one.rider("bystander"));
    let mut stream = all(&rider, &two).await;
    let mut other = all(&bystander, &two).await;
    for number in 0..3 {
        service.broadcast(&["rider_1"], json!({ "WORD": number })).await.expect(202);
        stream.next_of("notice").await;
    }
    let cursor = stream.last_id.clone();
    assert!(rider.on(&two).poll_all("after=0").await.to_string().contains("WORD"));

    service.delete("users/rider_1").await.expect(200);
    has_none(&rows_with(&database, "WORD").await);
    let topics = database.client().await.query("select from topics where name like 'user/%'", &[]).await.unwrap();
    assert!(topics.is_empty());
    for server in [&one, &two] {
        let rider = rider.on(server);
        eventually("nothing is in memory", async || {
            let poll = rider.poll_all("after=0&wait=0").await;
            assert_eq!(poll["gap"], Value::Null, "{poll}");
            poll["events"].as_array().unwrap().is_empty().then_some(())
        })
        .await;
    }
    // The streams go on; so does one that continues from before, and whoever never had a topic.
    let mut resumed = rider.on(&two).stream_all("", Some(&cursor)).await.expect(200);
    let sync = resumed.next_sync().await;
    assert_eq!((&sync["gap"], &sync["resumed"]), (&Value::Null, &json!(true)));
    service.broadcast(&["rider_1", "bystander"], json!({ "again": true })).await.expect(202);
    for stream in [&mut stream, &mut other, &mut resumed] {
        assert_eq!(stream.next_of("notice").await.data["data"], json!({ "again": true }));
    }
    let cursor = stream.last_id.clone();
    service.broadcast(&["rider_1"], json!({ "last": true })).await.expect(202);
    let polled = rider.on(&one).poll_all(&format!("after={cursor}")).await;
    assert_eq!((&polled["gap"], &polled["events"][0]["data"]["data"]), (&Value::Null, &json!({ "last": true })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_hint_comes_a_replica_notices_an_erasure_by_looking() {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_NOTIFY", "off"), ("RIDEWIRE_FALLBACK_POLL", "200ms")];
    let (one, two) = (Server::with(&database, &settings).await, Server::with(&database, &settings).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let mut watching = two.live(&driver, "ride_1").await;
    rider.post("rides/ride_1/cancel", json!({ "reason": "WORD" })).await.expect(200);
    watching.next_of("ride:cancel").await;
    one.service().delete("users/rider_1").await.expect(200);
    eventually("the ring is dropped", async || {
        let log = driver.on(&two).poll("ride_1", "after=0").await;
        (!log.to_string().contains("WORD")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_an_erased_driver_was_is_shown_to_nobody_any_more() {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_PRESENCE_GRACE", "200ms")];
    let (one, two) = (Server::with(&database, &settings).await, Server::with(&database, &settings).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let mut watching = two.live(&rider, "ride_1").await;
    let mut dispatch = all(&two.support(), &two).await;
    drop(one.live(&driver, "ride_1").await);
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
    // Their availability may have ended with their presence before.
    let told = loop {
        let told = dispatch.find("driver:availability").await.data;
        if told["lat"].is_null() {
            break told;
        }
    };
    assert_eq!(told["available"], false);
    has_none(&rows_with(&database, &LAT.to_string()).await);
    let presence = rider.get("messages/rides/ride_1/presence").await.expect(200).json();
    let of_driver =
        presence["participants"].as_array().unwrap().iter().find(|one| one["userId"] == "driver_1").unwrap();
    assert_eq!((&of_driver["online"], &of_driver["since"]), (&json!(false), &Value::Null));
    // A merged stream that takes a ride up is given its last values from memory.
    let mut attempt = 0;
    eventually("the value is forgotten", async || {
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
async fn the_feed_and_the_webhooks_have_nothing_of_an_erased_users_topic_and_repeat_nothing() {
    let database = Database::create().await;
    let receiver = Receiver::start(|_| Reply::Status(500)).await;
    let settings = [
        ("RIDEWIRE_WEBHOOK_ALLOW_HOSTS", "127.0.0.1"),
        ("RIDEWIRE_WEBHOOK_RETRIES", "1h"),
        ("RIDEWIRE_PUSH_AFTER", "200ms"),
    ];
    let server = Server::with(&database, &settings).await;
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
    eventually("deliveries wait", async || {
        let deliveries = service.get(&path).await.expect(200).json();
        let types: Vec<_> =
            deliveries["deliveries"].as_array().unwrap().iter().map(|one| one["type"].clone()).collect();
        (types.contains(&json!("notice")) && types.contains(&json!("message.undelivered"))).then_some(())
    })
    .await;

    service.delete("users/rider_1").await.expect(200);
    has_none(&rows_with(&database, "WORD").await);
    let of_topic = rows_with(&database, "user/rider_1").await;
    has_none(&of_topic);
    let of_feed = rows_with(&database, "message:undelivered").await;
    has_none(&of_feed.into_iter().filter(|(_, row)| row.contains("rider_1")).collect::<Vec<_>>());
    // Another message: the watermark has not moved, so nothing is reported again.
    let begin = service.get("feed/poll").await.expect(200).json()["cursor"].clone();
    driver.send("ride_1", "Hello?").await;
    let (rider, _) = server.open_ride("ride_2").await;
    let marker = rider.send("ride_2", "a marker").await;
    let query = format!("feed/poll?after={}&types=message:undelivered&wait=0", begin.as_str().unwrap());
    let reported = eventually("what comes later is reported", async || {
        let events = service.get(&query).await.expect(200).json()["events"].as_array().unwrap().clone();
        let has_marker = events.iter().any(|event| event["data"]["data"]["messageId"] == marker["id"]);
        has_marker.then_some(events)
    })
    .await;
    assert!(reported.iter().all(|event| event["data"]["data"]["userId"] != "rider_1"), "{reported:#?}");
}
