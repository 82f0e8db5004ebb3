//! Ephemeral and latest-only events (typing, location, presence), and the acknowledgement of delivery by cursors.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Database, Server, User, eventually};

async fn set_typing(user: &User, typing: bool) {
    user.post("messages/rides/ride_1/typing", json!({ "typing": typing })).await.expect(202);
}

/// Waits until a poll reports these users as typing.
async fn until_typing(user: &User, typing: Value) {
    eventually(&format!("{typing} type"), async || {
        (user.poll("ride_1", "").await["state"]["typing"] == typing).then_some(())
    })
    .await;
}

async fn presence(user: &User) -> Vec<(String, bool)> {
    let response = user.get("messages/rides/ride_1/presence").await.expect(200).json();
    let participants = response["participants"].as_array().unwrap().iter();
    let entry = |entry: &Value| (entry["userId"].as_str().unwrap().to_owned(), entry["online"].as_bool().unwrap());
    participants.map(entry).collect()
}

async fn until_online(caller: &User, name: &str, online: bool) {
    eventually(&format!("{name} is online: {online}"), async || {
        presence(caller).await.contains(&(name.to_owned(), online)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_typing_indicator_is_sent_once_and_ends_by_timeout_or_with_a_message() {
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let mut other = two.live_stream(&rider, "ride_1").await;
    let mut own = two.live_stream(&driver, "ride_1").await;
    // A repeat within three seconds is not an event, and the indicator lasts six seconds. On a slow machine the attempt is
    // inconclusive and is repeated.
    loop {
        let started = Instant::now();
        set_typing(&driver, true).await;
        set_typing(&driver, true).await;
        let was_quick = started.elapsed() < Duration::from_secs(3);
        let event = other.next_of_type("typing:indicator").await;
        assert_eq!(event.data, json!({"rideId": "ride_1", "userId": "driver_1", "typing": true}));
        assert!(event.id.is_none(), "the event has no log position");
        // A poll on any replica returns it.
        let state = rider.on(&two).poll("ride_1", "").await["state"].clone();
        if was_quick && started.elapsed() < Duration::from_secs(6) {
            assert_eq!(state["typing"], json!(["driver_1"]));
            assert_eq!(
                other.next_of_type("typing:indicator").await.data["typing"],
                false,
                "after 6 s, without another event before"
            );
            break;
        }
        while other.next_of_type("typing:indicator").await.data["typing"] == true {}
        until_typing(&rider, json!([])).await;
        until_typing(&rider.on(&two), json!([])).await;
    }
    until_typing(&rider, json!([])).await;

    set_typing(&driver, true).await;
    assert_eq!(other.next_of_type("typing:indicator").await.data["typing"], true);
    driver.send("ride_1", "Here").await;
    let mut kinds = vec![other.next_event().await.kind, other.next_event().await.kind];
    kinds.sort();
    assert_eq!(kinds, ["message:new", "typing:indicator"]);
    assert_eq!(own.next_event().await.kind, "message:new", "the typing user gets no event");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn typing_needs_an_open_chat() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    server.service().put_ride("ride_1", "rider_1", None).await.expect(201);
    let rider = server.rider("rider_1");
    rider.post("messages/rides/ride_1/typing", json!({"typing": true})).await.problem(409, "chat_not_open");
    rider.post("messages/rides/ride_1/typing", json!({})).await.invalid_field("/typing");
    let other = server.rider("rider_2");
    other.post("messages/rides/ride_1/typing", json!({"typing": true})).await.problem(404, "ride_not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_drivers_last_location_is_sent_and_stored_with_and_without_notify() {
    for notify in ["on", "off"] {
        let database = Database::create().await;
        let settings = [("RIDEWIRE_NOTIFY", notify), ("RIDEWIRE_FALLBACK_POLL", "300ms")];
        let (one, two) =
            (Server::start_with(&database, &settings).await, Server::start_with(&database, &settings).await);
        let (rider, driver) = one.open_ride("ride_1").await;
        rider.get("rides/ride_1/location").await.problem(404, "location_unknown");
        let mut stream = two.live_stream(&rider, "ride_1").await;
        let put = async |body: Value| driver.post("rides/ride_1/location", body).await;
        put(json!({"lat": 52.5, "lng": 13.4, "heading": 10})).await.expect(202);
        let event = stream.next_of_type("ride:location").await;
        assert!(event.id.is_none() && event.data["driverId"] == "driver_1" && event.data["speed"].is_null());
        put(json!({"lat": 1, "lng": 1, "at": "2020-01-01T00:00:00Z"})).await.expect(202);
        for step in 1..=20 {
            put(json!({"lat": 52.5, "lng": 13.4 + f64::from(step)})).await.expect(202);
        }
        let mut last = stream.next_of_type("ride:location").await.data;
        while last["lng"] != 33.4 {
            let next = stream.next_of_type("ride:location").await.data;
            assert!(next["lng"].as_f64() > last["lng"].as_f64(), "an older value after a newer one: {last} {next}");
            last = next;
        }
        assert_eq!(rider.get("rides/ride_1/location").await.expect(200).json(), last);
        assert_eq!(rider.on(&two).poll("ride_1", "").await["state"]["location"], last);
        let log: i64 = database
            .client()
            .await
            .query_one("select count(*) from events where topic = 'ride/ride_1'", &[])
            .await
            .unwrap()
            .get(0);
        assert_eq!(log, 1, "locations are not in the log");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_and_unauthorized_locations_are_rejected() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let wrong = [
        ("/lat", json!({"lat": 91, "lng": 0})),
        ("/lat", json!({"lng": 0})),
        ("/lng", json!({"lat": 0, "lng": 180.5})),
        ("/heading", json!({"lat": 0, "lng": 0, "heading": 361})),
        ("/accuracy", json!({"lat": 0, "lng": 0, "accuracy": -2})),
        ("/at", json!({"lat": 0, "lng": 0, "at": "yesterday"})),
        ("/at", json!({"lat": 0, "lng": 0, "at": "-004800-01-01T00:00:00Z"})),
        ("/lat", json!({"lat": "0", "lng": 0})),
    ];
    for (field, body) in wrong {
        driver.post("rides/ride_1/location", body).await.invalid_field(field);
    }
    let location = json!({"lat": 0, "lng": 0});
    rider.post("rides/ride_1/location", location.clone()).await.problem(403, "forbidden");
    server.driver("driver_2").post("rides/ride_1/location", location.clone()).await.problem(404, "ride_not_found");
    for future in ["2999-01-01T00:00:00Z", "9999-12-31T23:59:59Z"] {
        driver.post("rides/ride_1/location", json!({"lat": 0, "lng": 0, "at": future})).await.expect(202);
        let kept = rider.get("rides/ride_1/location").await.expect(200).json();
        assert!(kept["at"].as_str().unwrap() < "2900", "{kept}");
    }
    // The location of the previous driver is not shown for the next driver.
    server.service().put_ride("ride_1", "rider_1", Some("driver_2")).await.expect(200);
    rider.get("rides/ride_1/location").await.problem(404, "location_unknown");
    driver.post("rides/ride_1/location", location).await.problem(404, "ride_not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_is_reported_and_several_devices_count_as_one() {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_PRESENCE_GRACE", "1s")];
    let (one, two) = (Server::start_with(&database, &settings).await, Server::start_with(&database, &settings).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let mut stream = one.live_stream(&rider, "ride_1").await;
    stream.includes_presence = true;
    until_online(&rider, "rider_1", true).await;
    let first = two.live_stream(&driver, "ride_1").await;
    let event = stream.next_of_type("presence:online").await;
    assert_eq!((&event.data["userId"], &event.id), (&json!("driver_1"), &None));
    let second = one.live_stream(&driver, "ride_1").await;
    // Each stream is registered before the previous one closes.
    let on_both_replicas = async || (database.replicas_with_presence("driver_1", "ride_1").await == 2).then_some(());
    eventually("the driver is registered on both replicas", on_both_replicas).await;
    drop(first);
    // A move to another replica within the grace period is not an event. A second device is not an event either.
    let third = two.live_stream(&driver, "ride_1").await;
    eventually("the driver is registered on both replicas again", on_both_replicas).await;
    drop(second);
    drop(third);
    let event = stream.next_of_type("presence:offline").await;
    assert_eq!(event.data["userId"], "driver_1");
    until_online(&rider.on(&two), "driver_1", false).await;
    // A polling client stays online between its polls.
    driver.poll("ride_1", "after=1&wait=0").await;
    stream.next_of_type("presence:online").await;
    stream.next_of_type("presence:offline").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_replica_takes_its_users_offline_and_a_database_crash_does_not() {
    let mut cluster = crate::support::Cluster::dedicated().await;
    let database = cluster.database();
    let settings = [("RIDEWIRE_PRESENCE_GRACE", "1s")];
    let one = Server::start_with(&database, &settings).await;
    let two = Server::start_with(&database, &settings).await;
    let (rider, driver) = one.open_ride("ride_1").await;
    let _here = one.live_stream(&rider, "ride_1").await;
    let _there = two.live_stream(&driver, "ride_1").await;
    until_online(&rider, "driver_1", true).await;
    // A crash empties the presence tables; the replicas register their connections again.
    cluster.restart_immediate().await;
    eventually("both participants are online again", async || {
        let response = rider.get("messages/rides/ride_1/presence").await;
        if response.status != 200 {
            return None;
        }
        let response = response.json();
        response["participants"].as_array().unwrap().iter().all(|entry| entry["online"] == true).then_some(())
    })
    .await;
    two.kill().await;
    // The lease of the killed replica expires.
    database.expire_lease_of("driver_1").await;
    until_online(&rider, "driver_1", false).await;
    assert!(presence(&rider).await.contains(&("rider_1".to_owned(), true)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_polls_cursor_and_a_streams_last_id_acknowledge_delivery() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let sent = rider.send("ride_1", "one").await;
    let mut stream = server.live_stream(&rider, "ride_1").await;
    driver.poll("ride_1", "after=2&wait=0").await;
    let event = stream.next_of_type("message:delivered").await;
    assert_eq!((&event.data["userId"], &event.data["seq"]), (&json!("driver_1"), &sent["seq"]));
    assert_eq!(event.data["messageId"], sent["id"]);
    rider.send("ride_1", "two").await;
    stream.next_of_type("message:new").await;
    driver.stream_from("ride_1", "", Some("4")).await.next_sync().await;
    assert_eq!(stream.next_of_type("message:delivered").await.data["seq"], 4);
    // Neither a poll for other types, nor a stream that begins after the history, acknowledges anything.
    for ride in ["ride_2", "ride_3"] {
        server.open_ride(ride).await;
        rider.send(ride, "three").await;
    }
    driver.poll("ride_2", "after=2&wait=0&types=ride:*").await;
    driver.stream("ride_2", "after=2").await.next_sync().await;
    // First acknowledgements of a ride are written in the order of their requests. When this one is visible, an acknowledgement
    // by one of the two requests above would be visible too.
    let mut stream = server.live_stream(&rider, "ride_3").await;
    driver.poll("ride_3", "after=2&wait=0").await;
    assert_eq!(stream.next_of_type("message:delivered").await.data["seq"], 2);
    let receipts = rider.poll("ride_2", "").await["state"]["receipts"].clone();
    let of_driver = receipts.as_array().unwrap().iter().find(|receipt| receipt["userId"] == "driver_1").unwrap();
    assert_eq!(of_driver["deliveredSeq"], 0, "{receipts}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polls_do_not_acknowledge_each_others_receipts() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    rider.send("ride_1", "one").await;
    driver.send("ride_1", "two").await;
    let mut cursors = ["3".to_owned(), "3".to_owned()];
    for _ in 0..20 {
        for (user, cursor) in [&rider, &driver].into_iter().zip(&mut cursors) {
            *cursor = user.poll("ride_1", &format!("after={cursor}&wait=1")).await["cursor"].as_str().unwrap().into();
        }
        if cursors == ["5", "5"] {
            break;
        }
    }
    assert_eq!(cursors, ["5", "5"], "one delivery receipt each");
    let again = rider.poll("ride_1", "after=5&wait=2").await;
    assert_eq!((&again["events"], &again["cursor"]), (&json!([]), &json!("5")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn infrequent_polls_return_the_current_state() {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_PRESENCE_GRACE", "1s")];
    let (one, two) = (Server::start_with(&database, &settings).await, Server::start_with(&database, &settings).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    // The poll uses a replica without another reader of the ride. It returns the state after the hint has arrived.
    let poller = rider.on(&two);
    let assert_state = async |typing: Value, online: bool, lng: Value| {
        eventually(&format!("{typing}, {online}, {lng}"), async || {
            // The indicator may expire before a slow machine polls, so it is renewed.
            if typing != json!([]) {
                set_typing(&driver, true).await;
            }
            let state = poller.poll("ride_1", "").await["state"].clone();
            let mut participants = state["participants"].as_array().unwrap().iter();
            let driver = participants.find(|entry| entry["userId"] == "driver_1").unwrap();
            let is_right = state["typing"] == typing && driver["online"] == online && state["location"]["lng"] == lng;
            // The merged poll returns the same values.
            let state = poller.poll_all("").await["state"]["rides"]["ride_1"].clone();
            (is_right && state["typing"] == typing && state["location"]["lng"] == lng).then_some(())
        })
        .await;
    };
    assert_state(json!([]), false, Value::Null).await;
    let stream = one.live_stream(&driver, "ride_1").await;
    assert_state(json!([]), true, Value::Null).await;
    // Between two polls only the last value counts.
    for lng in 1..=20 {
        driver.post("rides/ride_1/location", json!({ "lat": 1, "lng": lng })).await.expect(202);
        set_typing(&driver, lng % 2 == 0).await;
    }
    assert_state(json!(["driver_1"]), true, json!(20.0)).await;
    driver.send("ride_1", "Here").await;
    assert_state(json!([]), true, json!(20.0)).await;
    drop(stream);
    assert_state(json!([]), false, json!(20.0)).await;
    // A polling client stays online between two polls, for the time of the longest poll.
    assert!(presence(&driver).await.contains(&("rider_1".to_owned(), true)));
}
