//! `message:undelivered` on the feed: a message that a participant has not received in time.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Database, Server, Stream, User};

const SETTINGS: [(&str, &str); 1] = [("RIDEWIRE_PUSH_AFTER", "1s")];

/// The feed's `message:undelivered` from now on.
async fn pushes(service: &User) -> Stream {
    let mut stream = Stream::open(service.request(Method::GET, "feed?types=message:undelivered")).await.expect(200);
    stream.next_sync().await;
    stream
}

/// Whom the next one is for, and which message it names.
async fn next(pushes: &mut Stream) -> (Value, Value) {
    let event = pushes.next_event().await;
    (event.data["data"]["userId"].clone(), event.data["data"]["messageId"].clone())
}

/// Causes an event that comes after all that was due before it.
async fn marker(server: &Server, ride: &str) -> (Value, Value) {
    let (rider, _) = server.open_ride(ride).await;
    let message = rider.send(ride, "a marker").await;
    (json!("driver_1"), message["id"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_not_delivered_in_time_is_reported_once_until_the_watermark_moves() {
    let database = Database::create().await;
    let server = Server::with(&database, &SETTINGS).await;
    let service = server.service();
    let (rider, driver) = server.open_ride("ride_1").await;
    let mut pushes = pushes(&service).await;
    let first = rider.send("ride_1", "Where are you?").await;
    let event = pushes.next_event().await;
    let mut expected = json!({
        "rideId": "ride_1", "userId": "driver_1", "messageId": first["id"], "seq": first["seq"], "unreadCount": 1,
    });
    expected["at"] = event.data["data"]["at"].clone();
    assert_eq!(event.data["data"], expected);
    assert!(event.data["data"]["at"].as_str().is_some_and(|at| at.len() == "2026-01-01T00:00:00.000Z".len()));
    assert_eq!((&event.data["topic"], &event.data["seq"]), (&json!("ride/ride_1"), &first["seq"]));

    // Not for each of the next messages.
    let second = rider.send("ride_1", "Hello?").await;
    rider.send("ride_1", "Are you there?").await;
    let expected = marker(&server, "ride_2").await;
    assert_eq!(next(&mut pushes).await, expected);

    // The watermark has moved, and there is still something after it.
    driver.mark(&first, "delivered").await.expect(200);
    let event = pushes.next_event().await;
    let data = &event.data["data"];
    assert_eq!((&data["messageId"], &data["unreadCount"]), (&second["id"], &json!(3)), "{data}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_delivered_deleted_or_ones_own_is_not_reported() {
    let database = Database::create().await;
    let server = Server::with(&database, &SETTINGS).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let mut pushes = pushes(&server.service()).await;
    let read = rider.send("ride_1", "One").await;
    driver.mark(&read, "read").await.expect(200);
    let deleted = rider.send("ride_1", "Two").await;
    rider.erase(&deleted).await.expect(204);
    // A phone that polls acknowledges by its cursor.
    let polled = rider.send("ride_1", "Three").await;
    driver.poll("ride_1", &format!("after={}&wait=0", polled["seq"])).await;
    // Whoever has left is not waited for.
    server.service().put_ride("ride_3", "rider_1", Some("driver_3")).await.expect(201);
    rider.send("ride_3", "Four").await;
    server.service().put_ride("ride_3", "rider_1", Some("driver_1")).await.expect(200);
    let expected = marker(&server, "ride_2").await;
    assert_eq!(next(&mut pushes).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_replica_reports_what_a_killed_one_has_left() {
    let database = Database::create().await;
    let victim = Server::with(&database, &[("RIDEWIRE_PUSH_AFTER", "3s")]).await;
    let rider = victim.open_ride("ride_1").await.0;
    let message = rider.send("ride_1", "Hello?").await;
    victim.kill().await;
    let server = Server::with(&database, &SETTINGS).await;
    let service = server.service();
    let mut pushes =
        Stream::open(service.request(Method::GET, "feed?types=message:undelivered&after=0")).await.expect(200);
    pushes.next_sync().await;
    assert_eq!(next(&mut pushes).await, (json!("driver_1"), message["id"].clone()));
    let other = Server::with(&database, &SETTINGS).await;
    let expected = marker(&other, "ride_2").await;
    assert_eq!(next(&mut pushes).await, expected, "two replicas report it once");
}
