//! A stream of everything of somebody who has more rides than it follows at once.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Database, Server, Stream, User, eventually};

/// The most rides that are followed at once.
const MOST: usize = 64;

async fn live(user: &User) -> (Stream, Value) {
    let mut stream = user.stream_all("", None).await.expect(200);
    let sync = stream.next_sync().await;
    (stream, sync)
}

/// Rides of `rider_1` and a driver each, oldest first.
async fn put_rides(server: &Server, numbers: std::ops::Range<usize>) {
    for number in numbers {
        server.service().put_ride(&format!("ride_{number}"), "rider_1", Some("driver_1")).await.expect(201);
    }
}

async fn end(server: &Server, ride: &str) {
    server.service().set_status(ride, "cancelled").await.expect(200);
}

/// Reads on to the next message of a ride; all `stream:sync` on the way name these as left out.
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
async fn a_ride_that_begins_takes_the_place_of_the_oldest_that_has_ended() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    put_rides(&server, 0..MOST).await;
    end(&server, "ride_3").await;
    end(&server, "ride_5").await;
    let rider = server.rider("rider_1");
    let (mut stream, sync) = live(&rider).await;
    assert_eq!((&sync["omitted"], sync["state"]["rides"].as_object().unwrap().len()), (&json!([]), MOST));
    assert_eq!(omitted(&rider, "").await, json!([]));

    server.driver("driver_1").send("ride_3", "before").await;
    assert_eq!(find_message(&mut stream, "ride_3", &json!([])).await, "before");
    put_rides(&server, MOST..MOST + 1).await;
    let assigned = stream.find("ride:assigned").await;
    assert_eq!(assigned.data["ride"]["rideId"], "ride_64");
    server.driver("driver_1").send("ride_64", "here").await;
    assert_eq!(find_message(&mut stream, "ride_64", &json!(["ride_3"])).await, "here");
    assert_eq!(omitted(&rider, "").await, json!(["ride_3"]));

    // What is said there meanwhile comes when there is room, once, and as it was said.
    server.driver("driver_1").send("ride_3", "meanwhile").await;
    server.driver("driver_1").send("ride_5", "elsewhere").await;
    assert_eq!(find_message(&mut stream, "ride_5", &json!(["ride_3"])).await, "elsewhere");
    let cursor = stream.last_id.clone();
    server.service().put_ride("ride_0", "rider_1", Some("driver_2")).await.expect(200);
    let driver = server.driver("driver_1");
    let (_, sync) = live(&driver).await;
    assert_eq!(sync["omitted"], json!([]), "the driver has lost one");
    // A stream that goes on from a cursor of before knows where it was on the ride that was left out.
    let mut again = rider.stream_all("types=message:new", Some(&cursor)).await.expect(200);
    assert_eq!(again.next_sync().await["omitted"], json!(["ride_3"]));
    server.service().put_ride("ride_65", "rider_1", Some("driver_3")).await.expect(201);
    server.driver("driver_3").send("ride_65", "new").await;
    assert_eq!(find_message(&mut again, "ride_65", &json!(["ride_5", "ride_3"])).await, "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ride_that_was_left_out_comes_in_when_another_ends_and_nothing_of_it_is_lost() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    put_rides(&server, 0..MOST + 2).await;
    let (rider, driver) = (server.rider("rider_1"), server.driver("driver_1"));
    let (mut stream, sync) = live(&rider).await;
    assert_eq!(sync["omitted"], json!(["ride_1", "ride_0"]), "the newest are followed, and the best are named first");
    let polled = rider.poll_all("").await;
    assert_eq!(polled["omitted"], sync["omitted"]);
    let cursor = polled["cursor"].as_str().unwrap().to_owned();
    assert!(cursor.len() <= 4_096);

    driver.send("ride_1", "one").await;
    driver.send("ride_1", "two").await;
    driver.send("ride_65", "followed").await;
    assert_eq!(find_message(&mut stream, "ride_65", &json!(["ride_1", "ride_0"])).await, "followed");
    end(&server, "ride_7").await;
    let left = json!(["ride_0", "ride_7"]);
    assert_eq!(find_message(&mut stream, "ride_1", &left).await, "one");
    assert_eq!(find_message(&mut stream, "ride_1", &left).await, "two");
    driver.send("ride_1", "three").await;
    assert_eq!(find_message(&mut stream, "ride_1", &left).await, "three");

    // The same from the cursor of before, by polling: what was left out then is followed now.
    let (mut after, mut said) = (cursor, Vec::new());
    while said.len() < 4 {
        let page = rider.poll_all(&format!("after={after}&types=message:new&wait=5")).await;
        assert_eq!((&page["resumed"], &page["omitted"]), (&json!(true), &left), "{page}");
        let events = page["events"].as_array().unwrap();
        said.extend(events.iter().map(|event| event["data"]["content"].as_str().unwrap().to_owned()));
        after = page["cursor"].as_str().unwrap().to_owned();
    }
    said.sort();
    assert_eq!(said, ["followed", "one", "three", "two"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rides_that_begin_while_others_end_are_followed_or_named_and_none_is_forgotten() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    put_rides(&server, 0..MOST + 2).await;
    let rider = server.rider("rider_1");
    let (mut stream, sync) = live(&rider).await;
    assert_eq!(sync["omitted"], json!(["ride_1", "ride_0"]));
    // Each time one of the followed ends and another begins, at once: what is looked up of the rides meanwhile may be older than
    // what the stream has been told.
    let rounds = 40;
    for round in 0..rounds {
        let (old, new) = (format!("ride_{}", 2 + round), MOST + 2 + round);
        tokio::join!(end(&server, &old), put_rides(&server, new..new + 1));
    }
    // As a poll has it: those that have not ended, the newest of them first; all others are left out.
    let total = MOST + 2 + rounds;
    let polled = omitted(&rider, "").await;
    assert_eq!(polled.as_array().unwrap().len(), total - MOST);
    server.driver("driver_1").send(&format!("ride_{}", total - 1), "the end").await;
    let (mut left_out, mut has_message) = (sync["omitted"].clone(), false);
    let all = |list: &Value| list.as_array().unwrap().iter().map(Value::to_string).collect::<BTreeSet<_>>();
    while !has_message || all(&left_out) != all(&polled) {
        let event = stream.next_event().await;
        match event.kind.as_str() {
            "stream:sync" => left_out = event.data["omitted"].clone(),
            "message:new" => has_message = true,
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_a_ride_that_was_left_out_comes_before_its_closing() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    put_rides(&server, 0..MOST + 1).await;
    let (rider, driver) = (server.rider("rider_1"), server.driver("driver_1"));
    let (mut stream, sync) = live(&driver).await;
    assert_eq!(sync["omitted"], json!(["ride_0"]));
    let cursor = sync["cursor"].as_str().unwrap().to_owned();
    rider.send("ride_0", "left out").await;
    // They are taken off it.
    server.service().put_ride("ride_0", "rider_1", Some("driver_2")).await.expect(200);
    rider.send("ride_0", "not theirs").await;
    for stream in [&mut stream, &mut driver.stream_all("", Some(&cursor)).await.expect(200)] {
        let mut kinds = Vec::new();
        while kinds.last().is_none_or(|last| last != "ride:closed") {
            let event = stream.next_event().await;
            assert!(!event.text.contains("not theirs"), "{event:?}");
            if event.id.is_some() && event.kind != "stream:sync" {
                kinds.push(event.kind);
            }
        }
        assert_eq!(kinds, ["message:new", "ride:participants", "ride:closed"]);
    }
    eventually("nothing is left out", async || (omitted(&driver, "").await == json!([])).then_some(())).await;
}
