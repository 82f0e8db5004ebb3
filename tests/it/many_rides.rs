//! The merged stream of a user with more rides than the stream includes.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Database, Server, Stream, User, eventually};

/// The maximum number of rides of a merged stream.
const MAX_RIDES: usize = 64;

async fn live(user: &User) -> (Stream, Value) {
    let mut stream = user.stream_all("", None).await.expect(200);
    let sync = stream.next_sync().await;
    (stream, sync)
}

/// Creates rides of `rider_1` and `driver_1`, oldest first.
async fn put_rides(server: &Server, numbers: std::ops::Range<usize>) {
    for number in numbers {
        server.service().put_ride(&format!("ride_{number}"), "rider_1", Some("driver_1")).await.expect(201);
    }
}

async fn end(server: &Server, ride: &str) {
    server.service().set_status(ride, "cancelled").await.expect(200);
}

/// Reads up to the next message of a ride. Each `stream:sync` before it must have this `omitted` list.
async fn find_message(stream: &mut Stream, ride: &str, omitted: &Value) -> Value {
    loop {
        let event = stream.next_event().await;
        match event.kind.as_str() {
            "stream:sync" => assert_eq!(event.data["omitted"], *omitted, "{event:?}"),
            "message:new" if event.data["rideId"] == ride => return event.data["content"].clone(),
            _ => {}
        }
    }
}

async fn omitted(user: &User, query: &str) -> Value {
    user.poll_all(query).await["omitted"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_ride_displaces_the_oldest_ended_ride() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    put_rides(&server, 0..MAX_RIDES).await;
    end(&server, "ride_3").await;
    end(&server, "ride_5").await;
    let rider = server.rider("rider_1");
    let (mut stream, sync) = live(&rider).await;
    assert_eq!((&sync["omitted"], sync["state"]["rides"].as_object().unwrap().len()), (&json!([]), MAX_RIDES));
    assert_eq!(omitted(&rider, "").await, json!([]));

    server.driver("driver_1").send("ride_3", "before").await;
    assert_eq!(find_message(&mut stream, "ride_3", &json!([])).await, "before");
    put_rides(&server, MAX_RIDES..MAX_RIDES + 1).await;
    let assigned = stream.find("ride:assigned").await;
    assert_eq!(assigned.data["ride"]["rideId"], "ride_64");
    server.driver("driver_1").send("ride_64", "here").await;
    assert_eq!(find_message(&mut stream, "ride_64", &json!(["ride_3"])).await, "here");
    assert_eq!(omitted(&rider, "").await, json!(["ride_3"]));

    // Messages of an omitted ride arrive once the stream includes the ride again.
    server.driver("driver_1").send("ride_3", "while omitted").await;
    server.driver("driver_1").send("ride_5", "elsewhere").await;
    assert_eq!(find_message(&mut stream, "ride_5", &json!(["ride_3"])).await, "elsewhere");
    let cursor = stream.last_id.clone();
    server.service().put_ride("ride_0", "rider_1", Some("driver_2")).await.expect(200);
    let driver = server.driver("driver_1");
    let (_, sync) = live(&driver).await;
    assert_eq!(sync["omitted"], json!([]), "the driver has one ride less");
    // The cursor has the position of the omitted ride: a stream can resume from it.
    let mut again = rider.stream_all("types=message:new", Some(&cursor)).await.expect(200);
    assert_eq!(again.next_sync().await["omitted"], json!(["ride_3"]));
    server.service().put_ride("ride_65", "rider_1", Some("driver_3")).await.expect(201);
    server.driver("driver_3").send("ride_65", "new").await;
    assert_eq!(find_message(&mut again, "ride_65", &json!(["ride_5", "ride_3"])).await, "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_omitted_ride_is_included_without_loss_when_another_ends() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    put_rides(&server, 0..MAX_RIDES + 2).await;
    let (rider, driver) = (server.rider("rider_1"), server.driver("driver_1"));
    let (mut stream, sync) = live(&rider).await;
    assert_eq!(
        sync["omitted"],
        json!(["ride_1", "ride_0"]),
        "the newest rides are included, and `omitted` has the newest first"
    );
    let polled = rider.poll_all("").await;
    assert_eq!(polled["omitted"], sync["omitted"]);
    let cursor = polled["cursor"].as_str().unwrap().to_owned();
    assert!(cursor.len() <= 4_096);

    driver.send("ride_1", "one").await;
    driver.send("ride_1", "two").await;
    driver.send("ride_65", "included").await;
    assert_eq!(find_message(&mut stream, "ride_65", &json!(["ride_1", "ride_0"])).await, "included");
    end(&server, "ride_7").await;
    let still_omitted = json!(["ride_0", "ride_7"]);
    assert_eq!(find_message(&mut stream, "ride_1", &still_omitted).await, "one");
    assert_eq!(find_message(&mut stream, "ride_1", &still_omitted).await, "two");
    driver.send("ride_1", "three").await;
    assert_eq!(find_message(&mut stream, "ride_1", &still_omitted).await, "three");

    // A poll from the earlier cursor includes the ride that was omitted then.
    let (mut after, mut contents) = (cursor, Vec::new());
    while contents.len() < 4 {
        let page = rider.poll_all(&format!("after={after}&types=message:new&wait=5")).await;
        assert_eq!((&page["resumed"], &page["omitted"]), (&json!(true), &still_omitted), "{page}");
        let events = page["events"].as_array().unwrap();
        contents.extend(events.iter().map(|event| event["data"]["content"].as_str().unwrap().to_owned()));
        after = page["cursor"].as_str().unwrap().to_owned();
    }
    contents.sort();
    assert_eq!(contents, ["included", "one", "three", "two"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_ride_is_included_or_listed_as_omitted_while_rides_begin_and_end() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    put_rides(&server, 0..MAX_RIDES + 2).await;
    let rider = server.rider("rider_1");
    let (mut stream, sync) = live(&rider).await;
    assert_eq!(sync["omitted"], json!(["ride_1", "ride_0"]));
    // In each round one included ride ends and another begins at the same time. The list of rides that the stream reloads may be
    // older than the events that it has received.
    let rounds = 40;
    for round in 0..rounds {
        let (old, new) = (format!("ride_{}", 2 + round), MAX_RIDES + 2 + round);
        tokio::join!(end(&server, &old), put_rides(&server, new..new + 1));
    }
    // A poll includes the newest rides that have not ended, and omits all others.
    let total = MAX_RIDES + 2 + rounds;
    let polled = omitted(&rider, "").await;
    assert_eq!(polled.as_array().unwrap().len(), total - MAX_RIDES);
    server.driver("driver_1").send(&format!("ride_{}", total - 1), "the end").await;
    let (mut stream_omitted, mut has_message) = (sync["omitted"].clone(), false);
    let all = |list: &Value| list.as_array().unwrap().iter().map(Value::to_string).collect::<BTreeSet<_>>();
    while !has_message || all(&stream_omitted) != all(&polled) {
        let event = stream.next_event().await;
        match event.kind.as_str() {
            "stream:sync" => stream_omitted = event.data["omitted"].clone(),
            "message:new" => has_message = true,
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_remaining_events_of_an_omitted_ride_precede_its_closing() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    put_rides(&server, 0..MAX_RIDES + 1).await;
    let (rider, driver) = (server.rider("rider_1"), server.driver("driver_1"));
    let (mut stream, sync) = live(&driver).await;
    assert_eq!(sync["omitted"], json!(["ride_0"]));
    let cursor = sync["cursor"].as_str().unwrap().to_owned();
    rider.send("ride_0", "while omitted").await;
    // The driver is replaced.
    server.service().put_ride("ride_0", "rider_1", Some("driver_2")).await.expect(200);
    rider.send("ride_0", "not visible").await;
    for stream in [&mut stream, &mut driver.stream_all("", Some(&cursor)).await.expect(200)] {
        let mut kinds = Vec::new();
        while kinds.last().is_none_or(|last| last != "ride:closed") {
            let event = stream.next_event().await;
            assert!(!event.text.contains("not visible"), "{event:?}");
            if event.id.is_some() && event.kind != "stream:sync" {
                kinds.push(event.kind);
            }
        }
        assert_eq!(kinds, ["message:new", "ride:participants", "ride:closed"]);
    }
    eventually("no ride is omitted", async || (omitted(&driver, "").await == json!([])).then_some(())).await;
}
