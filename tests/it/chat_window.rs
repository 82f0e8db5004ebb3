//! The chat window: when it opens and closes, for which participants, and how that is determined.

use serde_json::{Value, json};

use crate::support::{Database, Server, User, clock_ahead};

fn policy(opens_at: &str, rider: u64, driver: u64) -> Value {
    json!({ "opensAt": opens_at, "graceSeconds": { "rider": rider, "driver": driver } })
}

async fn put(service: &User, ride: &str, body: Value) -> Value {
    let mut ride_body = json!({ "riderId": "rider_1" });
    ride_body.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    let response = service.put(&format!("rides/{ride}"), ride_body).await;
    assert!(response.status == 200 || response.status == 201, "{response:?}");
    response.json()
}

async fn chat(user: &User, ride: &str) -> Value {
    user.get(&format!("rides/{ride}")).await.expect(200).json()["chat"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ride_has_its_chat_policy_or_null_for_the_default() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let service = server.service();
    assert_eq!(put(&service, "ride_1", json!({})).await["chatPolicy"], Value::Null);
    let own = policy("arrived", 60, 3_600);
    assert_eq!(put(&service, "ride_2", json!({ "chatPolicy": own })).await["chatPolicy"], own);
    // An omitted policy stays, and a repeated one creates no event.
    let before = database.contents().await;
    assert_eq!(put(&service, "ride_2", json!({})).await["chatPolicy"], own);
    assert_eq!(put(&service, "ride_2", json!({ "chatPolicy": own })).await["chatPolicy"], own);
    assert_eq!(database.contents().await, before);
    let changed = put(&service, "ride_2", json!({ "chatPolicy": policy("requested", 0, 0) })).await;
    assert_eq!((&changed["chatPolicy"], &changed["chat"]), (&policy("requested", 0, 0), &json!("open")));
    let polled = server.rider("rider_1").poll("ride_2", "after=1&wait=0").await;
    assert_eq!(polled["events"][0]["type"], "ride:status");
    assert_eq!(polled["events"][0]["data"]["ride"], changed);
    let reset = put(&service, "ride_2", json!({ "chatPolicy": null })).await;
    assert_eq!((&reset["chatPolicy"], &reset["chat"]), (&Value::Null, &json!("none")));

    let wrong = [
        (json!({}), "/chatPolicy/opensAt"),
        (json!({ "opensAt": "requested" }), "/chatPolicy/graceSeconds"),
        (policy("completed", 1, 1), "/chatPolicy/opensAt"),
        (json!({ "opensAt": "requested", "graceSeconds": { "rider": 1 } }), "/chatPolicy/graceSeconds/driver"),
        (
            json!({ "opensAt": "requested", "graceSeconds": { "rider": -1, "driver": 1 } }),
            "/chatPolicy/graceSeconds/rider",
        ),
        (
            json!({ "opensAt": "requested", "graceSeconds": { "rider": 1.5, "driver": 1 } }),
            "/chatPolicy/graceSeconds/rider",
        ),
        (policy("requested", 1, 31_536_001), "/chatPolicy/graceSeconds/driver"),
        (
            json!({ "opensAt": "requested", "graceSeconds": { "rider": 1, "driver": 1, "x": 1 } }),
            "/chatPolicy/graceSeconds/x",
        ),
        (json!({ "opensAt": "requested", "graceSeconds": { "rider": 1, "driver": 1 }, "x": 1 }), "/chatPolicy/x"),
    ];
    for (policy, pointer) in wrong {
        let response = service.put("rides/ride_1", json!({ "riderId": "rider_1", "chatPolicy": policy })).await;
        response.invalid_field(pointer);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chat_window_opens_according_to_the_policy() {
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let service = one.service();
    for (ride, opens_at) in [("ride_0", "requested"), ("ride_1", "accepted"), ("ride_2", "arrived")] {
        put(&service, ride, json!({ "chatPolicy": policy(opens_at, 60, 60) })).await;
    }
    let users = [one.rider("rider_1"), two.support(), two.service()];
    let try_all = async |open: [bool; 3], name: &str| {
        for (ride, open) in ["ride_0", "ride_1", "ride_2"].iter().zip(open) {
            for user in &users {
                assert_eq!(chat(user, ride).await, if open { "open" } else { "none" }, "{ride} {name}");
                let sent = user.send_with_id(ride, "Hello", &format!("{}-{name}", user.name)).await;
                if open { drop(sent.expect(201)) } else { drop(sent.problem(409, "chat_not_open")) }
            }
            for user in &users {
                let typed = user.post(&format!("messages/rides/{ride}/typing"), json!({ "typing": true })).await;
                if open { drop(typed.expect(202)) } else { drop(typed.problem(409, "chat_not_open")) }
            }
        }
    };
    try_all([true, false, false], "requested").await;
    for ride in ["ride_0", "ride_1", "ride_2"] {
        two.driver("driver_1").post_empty(&format!("rides/{ride}/accept")).await.expect(200);
    }
    try_all([true, true, false], "accepted").await;
    for ride in ["ride_0", "ride_1", "ride_2"] {
        one.driver("driver_1").set_status(ride, "arrived").await.expect(200);
    }
    try_all([true, true, true], "arrived").await;
    for ride in ["ride_0", "ride_1", "ride_2"] {
        put(&service, ride, json!({ "driverId": null })).await;
    }
    try_all([true, false, false], "removed").await;
    // A chat that never opened is closed when the ride ends.
    one.rider("rider_1").post_empty("rides/ride_1/cancel").await.expect(200);
    one.rider("rider_1").send_with_id("ride_1", "Hello", "late").await.problem(409, "chat_closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chat_closes_per_participant_and_the_ride_when_both_have_closed() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let service = server.service();
    put(&service, "ride_1", json!({ "driverId": "driver_1", "chatPolicy": policy("accepted", 0, 3) })).await;
    let (rider, driver) = (server.rider("rider_1"), server.driver("driver_1"));
    let kept = rider.send("ride_1", "Hello").await;
    let mut stream = server.live_stream(&rider, "ride_1").await;
    let mut everything = [
        rider.stream_all("types=ride:*", None).await.expect(200),
        driver.stream_all("types=ride:*", None).await.expect(200),
    ];
    for stream in &mut everything {
        stream.next_sync().await;
    }
    let ended = service.post_empty("rides/ride_1/cancel").await.expect(200).json();
    assert_eq!(ended["chat"], "open", "open for the service while it is open for a participant");
    assert_eq!(stream.next_of_type("ride:cancel").await.data["ride"]["chat"], "open", "any participant may write");
    assert_eq!(chat(&rider, "ride_1").await, "readOnly");
    rider.send_with_id("ride_1", "Too late", "m-1").await.problem(409, "chat_closed");
    rider.post("messages/rides/ride_1/typing", json!({ "typing": true })).await.problem(409, "chat_closed");
    rider.edit(&kept, "changed").await.problem(409, "chat_closed");
    assert_eq!(rider.poll("ride_1", "").await["state"]["ride"]["chat"], "readOnly");
    assert_eq!(rider.get("rides").await.expect(200).json()["rides"][0]["chat"], "readOnly");
    // The ride closes when the driver's time has passed as well. Then both get their events.
    for stream in &mut everything {
        let closed = stream.find("ride:closed").await;
        assert_eq!((&closed.data["rideId"], &closed.data["reason"]), (&json!("ride_1"), &json!("ride_over")));
    }
    assert_eq!(stream.find("stream:closing").await.data["reason"], "ride_over");
    for user in [&rider, &driver, &server.support(), &service] {
        user.send_with_id("ride_1", "Too late", "m-2").await.problem(409, "chat_closed");
        assert_eq!(chat(user, "ride_1").await, "readOnly");
    }
    assert_eq!(driver.stream_from("ride_1", "", Some(&database.head("ride_1").await.to_string())).await.status, 204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_with_different_settings_and_clocks_close_a_ride_at_the_stored_time() {
    let database = Database::create().await;
    let ahead = clock_ahead();
    let long = Server::start_with(&database, &[("RIDEWIRE_CHAT_GRACE", "1h")]).await;
    let short = Server::start_with(&database, &[("RIDEWIRE_CHAT_GRACE", "0s"), ("LD_PRELOAD", ahead.as_str())]).await;
    let (rider, driver) = long.open_ride("ride_1").await;
    let (rider, driver) = (rider.with_token_ttl(TWO_DAYS), driver.with_token_ttl(TWO_DAYS));
    long.service().post_empty("rides/ride_1/cancel").await.expect(200);
    long.open_ride("ride_2").await;
    short.service().with_token_ttl(TWO_DAYS).post_empty("rides/ride_2/cancel").await.expect(200);
    database.until_closed("ride_2").await;
    // The ride that ended an hour ago is open on both, although a replica with a clock 2 h ahead has checked it.
    for server in [&long, &short] {
        let (rider, driver) = (rider.on(server), driver.on(server));
        assert_eq!(chat(&rider, "ride_1").await, "open");
        rider.send("ride_1", "Hello").await;
        let mut stream = server.live_stream(&driver, "ride_1").await;
        rider.send("ride_1", "Hello again").await;
        stream.next_of_type("message:new").await;
        driver.post("messages/rides/ride_1/typing", json!({ "typing": true })).await.expect(202);
        assert_eq!(chat(&rider, "ride_2").await, "readOnly");
        rider.send_with_id("ride_2", "Hello", "late").await.problem(409, "chat_closed");
    }
    let client = database.client().await;
    let later = "select rider_closes_at - ended_at = interval '1h' and driver_closes_at - ended_at = interval '1h'
                 from rides where ride_id = 'ride_1'";
    assert!(client.query_one(later, &[]).await.unwrap().get::<_, bool>(0));
    // No event follows `ride:closed`, so these are all events.
    let last: i64 = {
        let data = "select data::json->>'lastSeq' from events where topic = 'user/rider_1' and type = 'ride:closed'";
        client.query_one(data, &[]).await.unwrap().get::<_, String>(0).parse().unwrap()
    };
    assert_eq!(last, database.head("ride_2").await);
}

const TWO_DAYS: std::time::Duration = std::time::Duration::from_secs(48 * 3_600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_with_a_fast_clock_does_not_block_locations() {
    let database = Database::create().await;
    let ahead = clock_ahead();
    let right = Server::start(&database).await;
    let wrong = Server::start_with(&database, &[("LD_PRELOAD", ahead.as_str())]).await;
    let (rider, driver) = right.open_ride("ride_1").await;
    let (rider, driver) = (rider.with_token_ttl(TWO_DAYS), driver.with_token_ttl(TWO_DAYS));
    let client = database.client().await;
    let in_time = "select $1::text::timestamptz <= clock_timestamp()";
    for (lat, server) in [(1.0, &wrong), (2.0, &right), (3.0, &wrong), (4.0, &right)] {
        let body = json!({ "lat": lat, "lng": 2, "at": "2999-01-01T00:00:00Z" });
        driver.on(server).post("rides/ride_1/location", body).await.expect(202);
        let seen = rider.get("rides/ride_1/location").await.expect(200).json();
        assert_eq!(seen["lat"], lat);
        let at = seen["at"].as_str().unwrap();
        assert!(client.query_one(in_time, &[&at]).await.unwrap().get::<_, bool>(0), "{seen}");
        driver.on(server).post("rides/ride_1/location", json!({ "lat": lat + 0.5, "lng": 2 })).await.expect(202);
        assert_eq!(rider.get("rides/ride_1/location").await.expect(200).json()["lat"], lat + 0.5);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_with_a_fast_clock_does_not_drop_typing_indicators() {
    let database = Database::create().await;
    let ahead = clock_ahead();
    let right = Server::start(&database).await;
    let wrong = Server::start_with(&database, &[("LD_PRELOAD", ahead.as_str())]).await;
    let (rider, driver) = right.open_ride("ride_1").await;
    let driver = driver.with_token_ttl(TWO_DAYS);
    let rider = rider.with_token_ttl(TWO_DAYS);
    let mut streams = [right.live_stream(&rider, "ride_1").await, wrong.live_stream(&rider, "ride_1").await];
    for server in [&wrong, &right, &wrong, &right] {
        for typing in [true, false] {
            driver.on(server).post("messages/rides/ride_1/typing", json!({ "typing": typing })).await.expect(202);
            // Each event is visible on both replicas before the next one is sent, so the order is fixed.
            for stream in &mut streams {
                assert_eq!(stream.next_of_type("typing:indicator").await.data["typing"], typing);
            }
        }
    }
}
