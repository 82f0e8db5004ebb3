//! What is told beside the log: typing, where the driver is, who is there; and what a cursor acknowledges.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Database, Server, User, eventually};

async fn types(user: &User, typing: bool) {
    user.post("messages/rides/ride_1/typing", json!({ "typing": typing })).await.expect(202);
}

/// Waits until a poll says that these type.
async fn is_typing(user: &User, typing: Value) {
    eventually(&format!("{typing} type"), async || {
        (user.poll("ride_1", "").await["state"]["typing"] == typing).then_some(())
    })
    .await;
}

async fn presence(user: &User) -> Vec<(String, bool)> {
    let answer = user.get("messages/rides/ride_1/presence").await.expect(200).json();
    let people = answer["participants"].as_array().unwrap().clone();
    people.iter().map(|one| (one["userId"].as_str().unwrap().to_owned(), one["online"].as_bool().unwrap())).collect()
}

async fn is_online(asker: &User, name: &str, online: bool) {
    eventually(&format!("{name} is online: {online}"), async || {
        presence(asker).await.contains(&(name.to_owned(), online)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn typing_is_told_to_the_others_once_and_ends_by_itself_or_with_a_message() {
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let mut other = two.live(&rider, "ride_1").await;
    let mut own = two.live(&driver, "ride_1").await;
    // Said again within three seconds it is no news, and it lasts six. Where this machine takes longer to ask, that shows
    // nothing, and is tried again.
    loop {
        let asked = Instant::now();
        types(&driver, true).await;
        types(&driver, true).await;
        let was_quick = asked.elapsed() < Duration::from_secs(3);
        let told = other.next_of("typing:indicator").await;
        assert_eq!(told.data, json!({"rideId": "ride_1", "userId": "driver_1", "typing": true}));
        assert!(told.id.is_none(), "it is no place in the log");
        // A poll that comes by finds it, on any replica.
        let state = rider.on(&two).poll("ride_1", "").await["state"].clone();
        if was_quick && asked.elapsed() < Duration::from_secs(6) {
            assert_eq!(state["typing"], json!(["driver_1"]));
            assert_eq!(other.next_of("typing:indicator").await.data["typing"], false, "after 6 s, and nothing before");
            break;
        }
        while other.next_of("typing:indicator").await.data["typing"] == true {}
        is_typing(&rider, json!([])).await;
        is_typing(&rider.on(&two), json!([])).await;
    }
    is_typing(&rider, json!([])).await;

    types(&driver, true).await;
    assert_eq!(other.next_of("typing:indicator").await.data["typing"], true);
    driver.send("ride_1", "Here").await;
    let mut kinds = vec![other.next_event().await.kind, other.next_event().await.kind];
    kinds.sort();
    assert_eq!(kinds, ["message:new", "typing:indicator"]);
    assert_eq!(own.next_event().await.kind, "message:new", "nobody is told of their own typing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn typing_needs_an_open_chat() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    server.service().put_ride("ride_1", "rider_1", None).await.expect(201);
    let rider = server.rider("rider_1");
    rider.post("messages/rides/ride_1/typing", json!({"typing": true})).await.problem(409, "chat_not_open");
    rider.post("messages/rides/ride_1/typing", json!({})).await.wrong_field("/typing");
    let stranger = server.rider("stranger");
    stranger.post("messages/rides/ride_1/typing", json!({"typing": true})).await.problem(404, "ride_not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_drivers_last_position_is_told_and_kept_with_notify_and_without() {
    for notify in ["on", "off"] {
        let database = Database::create().await;
        let settings = [("RIDEWIRE_NOTIFY", notify), ("RIDEWIRE_FALLBACK_POLL", "300ms")];
        let (one, two) = (Server::with(&database, &settings).await, Server::with(&database, &settings).await);
        let (rider, driver) = one.open_ride("ride_1").await;
        rider.get("rides/ride_1/location").await.problem(404, "location_unknown");
        let mut stream = two.live(&rider, "ride_1").await;
        let put = async |body: Value| driver.post("rides/ride_1/location", body).await;
        put(json!({"lat": 52.5, "lng": 13.4, "heading": 10})).await.expect(202);
        let told = stream.next_of("ride:location").await;
        assert!(told.id.is_none() && told.data["driverId"] == "driver_1" && told.data["speed"].is_null());
        put(json!({"lat": 1, "lng": 1, "at": "2020-01-01T00:00:00Z"})).await.expect(202);
        for step in 1..=20 {
            put(json!({"lat": 52.5, "lng": 13.4 + f64::from(step)})).await.expect(202);
        }
        let mut last = stream.next_of("ride:location").await.data;
        while last["lng"] != 33.4 {
            let next = stream.next_of("ride:location").await.data;
            assert!(next["lng"].as_f64() > last["lng"].as_f64(), "never back: {last} {next}");
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
        assert_eq!(log, 1, "positions are not logged");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_that_is_none_or_of_another_is_refused() {
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
        driver.post("rides/ride_1/location", body).await.wrong_field(field);
    }
    let here = json!({"lat": 0, "lng": 0});
    rider.post("rides/ride_1/location", here.clone()).await.problem(403, "forbidden");
    server.driver("driver_2").post("rides/ride_1/location", here.clone()).await.problem(404, "ride_not_found");
    for future in ["2999-01-01T00:00:00Z", "9999-12-31T23:59:59Z"] {
        driver.post("rides/ride_1/location", json!({"lat": 0, "lng": 0, "at": future})).await.expect(202);
        let kept = rider.get("rides/ride_1/location").await.expect(200).json();
        assert!(kept["at"].as_str().unwrap() < "2900", "{kept}");
    }
    // What the driver before has said is nothing of the next one's.
    server.service().put_ride("ride_1", "rider_1", Some("driver_2")).await.expect(200);
    rider.get("rides/ride_1/location").await.problem(404, "location_unknown");
    driver.post("rides/ride_1/location", here).await.problem(404, "ride_not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_and_goes_is_told_and_several_devices_are_one() {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_PRESENCE_GRACE", "1s")];
    let (one, two) = (Server::with(&database, &settings).await, Server::with(&database, &settings).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let mut stream = one.live(&rider, "ride_1").await;
    stream.hears_presence = true;
    is_online(&rider, "rider_1", true).await;
    let first = two.live(&driver, "ride_1").await;
    let told = stream.next_of("presence:online").await;
    assert_eq!((&told.data["userId"], &told.id), (&json!("driver_1"), &None));
    let second = one.live(&driver, "ride_1").await;
    // Each is registered before the one before it goes.
    let are_on_both = async || (database.replicas_with("driver_1", "ride_1").await == 2).then_some(());
    eventually("they are on both", are_on_both).await;
    drop(first);
    // Moving to another replica within the grace shows nothing, and a second device neither.
    let third = two.live(&driver, "ride_1").await;
    eventually("they are on both again", are_on_both).await;
    drop(second);
    drop(third);
    let told = stream.next_of("presence:offline").await;
    assert_eq!(told.data["userId"], "driver_1");
    is_online(&rider.on(&two), "driver_1", false).await;
    // A poller is there between its polls.
    driver.poll("ride_1", "after=1&wait=0").await;
    stream.next_of("presence:online").await;
    stream.next_of("presence:offline").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_replica_takes_its_people_offline_and_a_crashed_database_nobody() {
    let mut cluster = crate::support::Cluster::own().await;
    let database = cluster.database();
    let settings = [("RIDEWIRE_PRESENCE_GRACE", "1s")];
    let one = Server::with(&database, &settings).await;
    let two = Server::with(&database, &settings).await;
    let (rider, driver) = one.open_ride("ride_1").await;
    let _here = one.live(&rider, "ride_1").await;
    let _there = two.live(&driver, "ride_1").await;
    is_online(&rider, "driver_1", true).await;
    // The tables of presence are emptied by a crash; everybody is registered again.
    cluster.restart_immediate().await;
    eventually("both are there again", async || {
        let answer = rider.get("messages/rides/ride_1/presence").await;
        if answer.status != 200 {
            return None;
        }
        let answer = answer.json();
        answer["participants"].as_array().unwrap().iter().all(|one| one["online"] == true).then_some(())
    })
    .await;
    two.kill().await;
    // Its lease runs out by the database's clock.
    database.expire_lease_of("driver_1").await;
    is_online(&rider, "driver_1", false).await;
    assert!(presence(&rider).await.contains(&("rider_1".to_owned(), true)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_polls_cursor_and_a_streams_last_id_acknowledge_delivery() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let sent = rider.send("ride_1", "one").await;
    let mut stream = server.live(&rider, "ride_1").await;
    driver.poll("ride_1", "after=2&wait=0").await;
    let told = stream.next_of("message:delivered").await;
    assert_eq!((&told.data["userId"], &told.data["seq"]), (&json!("driver_1"), &sent["seq"]));
    assert_eq!(told.data["messageId"], sent["id"]);
    rider.send("ride_1", "two").await;
    stream.next_of("message:new").await;
    driver.stream_from("ride_1", "", Some("4")).await.next_sync().await;
    assert_eq!(stream.next_of("message:delivered").await.data["seq"], 4);
    // Neither a poll for other types, nor a stream that begins after the history, acknowledges anything.
    for ride in ["ride_2", "ride_3"] {
        server.open_ride(ride).await;
        rider.send(ride, "three").await;
    }
    driver.poll("ride_2", "after=2&wait=0&types=ride:*").await;
    driver.stream("ride_2", "after=2").await.next_sync().await;
    // First acknowledgements of a ride are written in the order in which they came. So when this one can be seen, one of the
    // two above could be seen as well.
    let mut stream = server.live(&rider, "ride_3").await;
    driver.poll("ride_3", "after=2&wait=0").await;
    assert_eq!(stream.next_of("message:delivered").await.data["seq"], 2);
    let receipts = rider.poll("ride_2", "").await["state"]["receipts"].clone();
    let of_driver = receipts.as_array().unwrap().iter().find(|receipt| receipt["userId"] == "driver_1").unwrap();
    assert_eq!(of_driver["deliveredSeq"], 0, "{receipts}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_pollers_do_not_acknowledge_each_others_acknowledgements() {
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
    assert_eq!(cursors, ["5", "5"], "one delivery each");
    let again = rider.poll("ride_1", "after=5&wait=2").await;
    assert_eq!((&again["events"], &again["cursor"]), (&json!([]), &json!("5")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_looks_seldom_finds_everything_as_it_is_at_each_look() {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_PRESENCE_GRACE", "1s")];
    let (one, two) = (Server::with(&database, &settings).await, Server::with(&database, &settings).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    // On a replica where nobody else follows the ride, once the hint has crossed: who types, who is there, where.
    let seldom = rider.on(&two);
    let look = async |typing: Value, online: bool, lng: Value| {
        eventually(&format!("{typing}, {online}, {lng}"), async || {
            // Whoever types ends by themselves, after a time in which a slow machine may not even get to look: so they go on.
            if typing != json!([]) {
                types(&driver, true).await;
            }
            let state = seldom.poll("ride_1", "").await["state"].clone();
            let people = state["participants"].as_array().unwrap();
            let other = people.iter().find(|person| person["userId"] == "driver_1").unwrap();
            let is_right = state["typing"] == typing && other["online"] == online && state["location"]["lng"] == lng;
            // The poll of everything says the same.
            let state = seldom.poll_all("").await["state"]["rides"]["ride_1"].clone();
            (is_right && state["typing"] == typing && state["location"]["lng"] == lng).then_some(())
        })
        .await;
    };
    look(json!([]), false, Value::Null).await;
    let stream = one.live(&driver, "ride_1").await;
    look(json!([]), true, Value::Null).await;
    // What happened and was over between two looks is not seen: the last of it is.
    for lng in 1..=20 {
        driver.post("rides/ride_1/location", json!({ "lat": 1, "lng": lng })).await.expect(202);
        types(&driver, lng % 2 == 0).await;
    }
    look(json!(["driver_1"]), true, json!(20.0)).await;
    driver.send("ride_1", "Here").await;
    look(json!([]), true, json!(20.0)).await;
    drop(stream);
    look(json!([]), false, json!(20.0)).await;
    // Who polls is there between two looks, as long as the next one might wait.
    assert!(presence(&driver).await.contains(&("rider_1".to_owned(), true)));
}
