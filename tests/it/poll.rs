//! The long poll of a ride.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Database, Response, Server, User, data_types, eventually};

/// The longest wait of a poll. A poll that returns earlier and without events has not waited.
const MAX_WAIT: Duration = Duration::from_secs(55);

async fn poll_with_prefer(user: &User, query: &str, prefer: &str) -> Response {
    let request = user.request(Method::GET, &format!("messages/rides/ride_1/poll?{query}"));
    user.execute(request.header("prefer", prefer)).await.expect(200)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_poll_returns_the_head_immediately() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    rider.send("ride_1", "Hello").await;
    let start = Instant::now();
    let response = driver.get("messages/rides/ride_1/poll?wait=55").await.expect(200);
    assert!(start.elapsed() < MAX_WAIT, "the poll does not wait");
    assert_eq!(response.header("cache-control"), "no-store");
    let poll = response.json();
    let begin = json!({
        "events": [], "cursor": "2", "resumed": false, "gap": null, "hasMore": false, "state": poll["state"],
    });
    assert_eq!(poll, begin);
    assert_eq!((&poll["state"]["asOf"], &poll["state"]["ride"]["rideId"]), (&json!(2), &json!("ride_1")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_after_the_cursor_are_returned_immediately_in_pages() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let service = server.service();
    let sends: Vec<_> = (0..8)
        .map(|_| {
            let rider = rider.clone();
            tokio::spawn(async move {
                for number in 0..80 {
                    rider.send("ride_1", &number.to_string()).await;
                }
            })
        })
        .collect();
    for send in sends {
        send.await.unwrap();
    }
    let (mut cursor, mut pages) = ("0".to_owned(), Vec::new());
    let mut next = 1;
    loop {
        let poll = service.poll("ride_1", &format!("after={cursor}")).await;
        assert_eq!((&poll["resumed"], &poll["gap"]), (&json!(true), &Value::Null));
        let events = poll["events"].as_array().unwrap();
        for event in events {
            assert_eq!(event["id"], next.to_string());
            next += 1;
        }
        cursor = poll["cursor"].as_str().unwrap().to_owned();
        assert_eq!(cursor, (next - 1).to_string());
        pages.push(events.len());
        if !poll["hasMore"].as_bool().unwrap() {
            break;
        }
    }
    assert_eq!(next, 642);
    assert!(pages.iter().all(|page| *page <= 500), "{pages:?}");
    assert_eq!(pages[0], 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_poll_is_woken_only_by_matching_events_also_of_another_replica() {
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let poller = two.service();
    let waiting = tokio::spawn(async move { poller.poll("ride_1", "after=1&types=message:deleted&wait=30").await });
    let sent = rider.send("ride_1", "Hello").await;
    driver.mark(&sent, "read").await.expect(200);
    let head = database.head("ride_1").await;
    rider.delete_message(&sent).await.expect(204);
    let poll = waiting.await.unwrap();
    assert_eq!(data_types(&poll["events"]), ["message:deleted"]);
    assert_eq!(poll["events"][0]["id"], (head + 1).to_string());
    assert_eq!(poll["events"][0]["data"]["messageId"], sent["id"]);
    assert_eq!(poll["cursor"], (head + 1).to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_that_times_out_moves_its_cursor_past_filtered_events() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let service = server.service();
    for number in 0..5 {
        rider.send("ride_1", &number.to_string()).await;
    }
    let start = Instant::now();
    let poll = service.poll("ride_1", "after=1&types=ride:*&wait=1").await;
    assert!(start.elapsed() >= Duration::from_secs(1), "the poll waits for matching events");
    assert_eq!((&poll["events"], &poll["resumed"]), (&json!([]), &json!(true)));
    let cursor: i64 = poll["cursor"].as_str().unwrap().parse().unwrap();
    assert!((1..=6).contains(&cursor));
    // No event between the first cursor and this one was skipped.
    server.driver("driver_1").set_status("ride_1", "arrived").await.expect(200);
    let poll = service.poll("ride_1", &format!("after={cursor}&types=ride:*")).await;
    assert_eq!(data_types(&poll["events"]), ["ride:status"]);
    assert_eq!(poll["events"][0]["id"], "7");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wait_can_be_given_in_the_prefer_header() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (_, driver) = server.open_ride("ride_1").await;
    let start = Instant::now();
    let response = poll_with_prefer(&driver, "after=1", "respond-async, wait=1").await;
    assert_eq!(response.header("preference-applied"), "wait=1");
    assert!(start.elapsed() >= Duration::from_secs(1));
    // `?wait` takes precedence.
    let start = Instant::now();
    poll_with_prefer(&driver, "after=1&wait=0", "wait=55").await;
    assert!(start.elapsed() < MAX_WAIT);
    // An invalid `Prefer` is ignored.
    for unusable in ["wait=56", "wait=-1", "wait=x", "wait", "handling=strict"] {
        let response = poll_with_prefer(&driver, "after=0", unusable).await;
        assert_ne!(response.header("preference-applied"), unusable);
        assert_eq!(response.json()["events"].as_array().unwrap().len(), 1, "{unusable}");
    }
    for wrong in ["wait=56", "wait=-1", "wait=x", "wait=", "wait=1.5"] {
        driver.get(&format!("messages/rides/ride_1/poll?after=0&{wrong}")).await.problem(400, "invalid_request");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_past_the_head_is_reported_immediately() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let head = database.head("ride_1").await.to_string();
    for wait in [0, 55] {
        let query = format!("after=99&wait={wait}");
        let polled =
            tokio::time::timeout(MAX_WAIT, rider.poll("ride_1", &query)).await.expect("the poll does not wait");
        assert_eq!((&polled["cursor"], &polled["resumed"]), (&json!(head), &json!(false)));
        assert_eq!(polled["events"], json!([]));
    }
}

/// Starts a poll by `driver_1`, of the ride or merged. It acknowledges all messages. Waits until that event is committed.
async fn acknowledging_poll(database: &Database, driver: &User, of_all: bool) -> tokio::task::JoinHandle<Value> {
    let head = database.head("ride_1").await;
    let after = driver.poll_all("").await["cursor"].as_str().unwrap().to_owned();
    let driver = driver.clone();
    let waiting = tokio::spawn(async move {
        match of_all {
            true => driver.poll_all(&format!("after={after}&wait=30")).await,
            false => driver.poll("ride_1", &format!("after={head}&wait=30")).await,
        }
    });
    eventually("the delivery is committed", async || (database.head("ride_1").await > head).then_some(())).await;
    waiting
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_watermark_event_of_a_poll_itself_does_not_wake_it_and_is_in_the_next_response() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    for of_all in [false, true] {
        rider.send("ride_1", "one").await;
        let waiting = acknowledging_poll(&database, &driver, of_all).await;
        let two = rider.send("ride_1", "two").await;
        let polled = waiting.await.unwrap();
        assert_eq!(data_types(&polled["events"]), ["message:delivered", "message:new"], "{polled}");
        assert_eq!(polled["events"][0]["data"]["userId"], "driver_1");
        assert_eq!(polled["cursor"], polled["events"][1]["id"]);
        // Another request of the same user is a separate change.
        let waiting = acknowledging_poll(&database, &driver, of_all).await;
        driver.mark(&two, "read").await.expect(200);
        let polled = waiting.await.unwrap();
        assert_eq!(data_types(&polled["events"]), ["message:delivered", "message:read"], "{polled}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_that_times_out_leaves_its_own_delivery_event_to_the_next_poll() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let all = driver.poll_all("").await["cursor"].as_str().unwrap().to_owned();
    rider.send("ride_1", "one").await;
    // An event of another type, which the cursor passes, and the delivery event.
    driver.set_status("ride_1", "arrived").await.expect(200);
    let of_all = driver.poll_all(&format!("after={all}&types=message:*")).await;
    let after = of_all["cursor"].as_str().unwrap().to_owned();
    let timed_out = driver.poll("ride_1", "after=2&wait=2&types=message:*").await;
    let expected = (&json!([]), &json!("3"), &json!(true), &json!(false));
    assert_eq!((&timed_out["events"], &timed_out["cursor"], &timed_out["resumed"], &timed_out["hasMore"]), expected);
    eventually("the delivery is committed", async || (database.head("ride_1").await == 4).then_some(())).await;
    let next = driver.poll("ride_1", "after=3&wait=30&types=message:*").await;
    assert_eq!((data_types(&next["events"]), &next["cursor"]), (vec!["message:delivered"], &json!("4")));
    // The delivery is not that of this poll, so the merged poll returns it immediately as well.
    let next = driver.poll_all(&format!("after={after}&wait=30&types=message:*")).await;
    assert_eq!(data_types(&next["events"]), ["message:delivered"]);
    // For the other poll, the event is new.
    let next = rider.poll("ride_1", "after=3&wait=30").await;
    assert_eq!(data_types(&next["events"]), ["message:delivered"]);
}
