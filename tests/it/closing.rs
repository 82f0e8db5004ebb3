//! When a chat opens and closes, and how streams and polls of a closed ride end.

use serde_json::{Value, json};

use crate::support::{Database, Server, User, eventually};

/// Starts a server on which chats close one second after their ride's end.
async fn server_with_short_grace(database: &Database) -> Server {
    Server::start_with(database, &[("RIDEWIRE_CHAT_GRACE", "1s")]).await
}

/// Waits until the ride's chat has closed.
async fn until_closed(user: &User, ride: &str) {
    eventually("the chat closes", async || {
        let ride = user.get(&format!("rides/{ride}")).await.expect(200).json();
        (ride["chat"] == "readOnly").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_opens_with_acceptance() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let service = server.service();
    service.put_ride("ride_1", "rider_1", None).await.expect(201);
    let rider = server.rider("rider_1");
    for user in [&rider, &service, &server.support()] {
        user.send_with_id("ride_1", "Hello?", "m-1").await.problem(409, "chat_not_open");
    }
    assert_eq!(database.head("ride_1").await, 1);
    server.driver("driver_1").post_empty("rides/ride_1/accept").await.expect(200);
    rider.send_with_id("ride_1", "Hello?", "m-1").await.expect(201);

    // The chat of a ride that is cancelled before its acceptance never opens.
    service.put_ride("ride_2", "rider_1", None).await.expect(201);
    let ride = rider.post_empty("rides/ride_2/cancel").await.expect(200).json();
    assert_eq!(ride["chat"], "none");
    rider.send_with_id("ride_2", "Hello?", "m-1").await.problem(409, "chat_closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_closes_after_the_grace_period_and_repeated_sends_still_return_their_message() {
    let database = Database::create().await;
    let server = server_with_short_grace(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let sent = rider.send_with_id("ride_1", "Hello", "m-1").await.expect(201).json();
    let kept = rider.send("ride_1", "kept").await;
    let ended = driver.post_empty("rides/ride_1/cancel").await.expect(200).json();
    assert_eq!(ended["chat"], "open");
    until_closed(&rider, "ride_1").await;
    for user in [&rider, &driver, &server.support(), &server.service()] {
        user.send_with_id("ride_1", "Too late", "m-2").await.problem(409, "chat_closed");
    }
    rider.edit(&kept, "changed").await.problem(409, "chat_closed");
    let again = rider.send_with_id("ride_1", "Hello", "m-1").await.expect(200).json();
    assert_eq!(again["id"], sent["id"]);
    rider.send_with_id("ride_1", "Other", "m-1").await.problem(409, "idempotency_conflict");
    // The history is still readable.
    assert_eq!(driver.history("ride_1", "").await["messages"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_and_polls_end_when_the_ride_is_closed() {
    let database = Database::create().await;
    let server = server_with_short_grace(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    rider.send("ride_1", "Hello").await;
    let mut open = server.live_stream(&rider, "ride_1").await;
    let waiting = {
        let user = server.service();
        tokio::spawn(async move { user.poll("ride_1", "after=2&types=nothing&wait=20").await })
    };
    driver.post_empty("rides/ride_1/cancel").await.expect(200);
    let events = open.until_end().await;
    let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["ride:cancel", "stream:closing"]);
    assert!(events[1].data["reason"].is_string());
    let polled = waiting.await.unwrap();
    assert_eq!((&polled["closed"], &polled["events"]), (&json!(true), &json!([])), "{polled}");

    // A later stream replays the whole log before it ends.
    let mut late = driver.stream("ride_1", "after=0").await.expect(200);
    let events = late.until_end().await;
    let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["stream:sync", "ride:participants", "message:new", "ride:cancel", "stream:closing"]);
    assert_eq!(events[0].data["cursor"], "0");
    // A reconnect at the head gets 204. (The service acknowledges nothing, so the log does not change.)
    let service = server.service();
    assert_eq!(service.stream_from("ride_1", "", Some(&late.last_id)).await.status, 204);
    assert_eq!(service.stream("ride_1", "after=3").await.status, 204);
    let poll = service.poll("ride_1", "after=0").await;
    assert_eq!((poll["events"].as_array().unwrap().len(), &poll["closed"]), (3, &json!(true)));
    // A cursor past the head is reset to the head.
    let past = service.stream("ride_1", "after=99").await.expect(200).until_end().await;
    assert_eq!(past.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), ["stream:sync", "stream:closing"]);
    assert_eq!((&past[0].data["cursor"], &past[0].data["resumed"]), (&json!("3"), &json!(false)));
    let at_the_head = service.poll("ride_1", "after=3&wait=20").await;
    assert_eq!((&at_the_head["closed"], &at_the_head["cursor"]), (&json!(true), &json!("3")));
    assert_eq!(at_the_head["state"]["ride"]["chat"], "readOnly");
    assert_eq!(driver.stream_from("ride_1", "", Some(&late.last_id)).await.status, 204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ended_ride_within_its_grace_period_is_streamed_normally() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    driver.post_empty("rides/ride_1/cancel").await.expect(200);
    let mut stream = rider.stream("ride_1", "after=0").await.expect(200);
    stream.next_sync().await;
    stream.find("ride:cancel").await;
    driver.send("ride_1", "You left your umbrella").await;
    stream.next_of_type("message:new").await;
    let poll = rider.poll("ride_1", "after=2&wait=0").await;
    assert_eq!(poll.get("closed").unwrap_or(&Value::Bool(false)), &Value::Bool(false));
}
