//! When a chat opens, when it closes, and what then becomes of those who follow it.

use serde_json::{Value, json};

use crate::support::{Database, Server, User, eventually};

/// A server on which chats close right after their ride's end.
async fn hasty(database: &Database) -> Server {
    Server::with(database, &[("RIDEWIRE_CHAT_GRACE", "1s")]).await
}

/// Waits until the ride's chat has closed.
async fn closed(user: &User, ride: &str) {
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
        user.send_named("ride_1", "Hello?", "m-1").await.problem(409, "chat_not_open");
    }
    assert_eq!(database.head("ride_1").await, 1);
    server.driver("driver_1").post_nothing("rides/ride_1/accept").await.expect(200);
    rider.send_named("ride_1", "Hello?", "m-1").await.expect(201);

    // One that was cancelled before anybody accepted it never opens.
    service.put_ride("ride_2", "rider_1", None).await.expect(201);
    let ride = rider.post_nothing("rides/ride_2/cancel").await.expect(200).json();
    assert_eq!(ride["chat"], "none");
    rider.send_named("ride_2", "Hello?", "m-1").await.problem(409, "chat_closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_closes_a_grace_after_the_rides_end_and_still_knows_what_it_acknowledged() {
    let database = Database::create().await;
    let server = hasty(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let sent = rider.send_named("ride_1", "Hello", "m-1").await.expect(201).json();
    let kept = rider.send("ride_1", "kept").await;
    let ended = driver.post_nothing("rides/ride_1/cancel").await.expect(200).json();
    assert_eq!(ended["chat"], "open");
    closed(&rider, "ride_1").await;
    for user in [&rider, &driver, &server.support(), &server.service()] {
        user.send_named("ride_1", "Too late", "m-2").await.problem(409, "chat_closed");
    }
    rider.edit(&kept, "changed").await.problem(409, "chat_closed");
    let again = rider.send_named("ride_1", "Hello", "m-1").await.expect(200).json();
    assert_eq!(again["id"], sent["id"]);
    rider.send_named("ride_1", "Other", "m-1").await.problem(409, "idempotency_conflict");
    // What was said stays to be read.
    assert_eq!(driver.history("ride_1", "").await["messages"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_follow_a_ride_are_told_when_it_is_over_for_good() {
    let database = Database::create().await;
    let server = hasty(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    rider.send("ride_1", "Hello").await;
    let mut open = server.live(&rider, "ride_1").await;
    let waiting = {
        let user = server.service();
        tokio::spawn(async move { user.poll("ride_1", "after=2&types=nothing&wait=20").await })
    };
    driver.post_nothing("rides/ride_1/cancel").await.expect(200);
    let events = open.until_end().await;
    let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["ride:cancel", "stream:closing"]);
    assert!(events[1].data["reason"].is_string());
    let polled = waiting.await.unwrap();
    assert_eq!((&polled["closed"], &polled["events"]), (&json!(true), &json!([])), "{polled}");

    // Later comers are handed out the whole of it first.
    let mut late = driver.stream("ride_1", "after=0").await.expect(200);
    let events = late.until_end().await;
    let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["stream:sync", "ride:participants", "message:new", "ride:cancel", "stream:closing"]);
    assert_eq!(events[0].data["cursor"], "0");
    // And there is no reason to come back. (The service acknowledges nothing, so the log stays as it is.)
    let service = server.service();
    assert_eq!(service.stream_from("ride_1", "", Some(&late.last_id)).await.status, 204);
    assert_eq!(service.stream("ride_1", "after=3").await.status, 204);
    let poll = service.poll("ride_1", "after=0").await;
    assert_eq!((poll["events"].as_array().unwrap().len(), &poll["closed"]), (3, &json!(true)));
    // One that is past the end does not know where that is.
    let past = service.stream("ride_1", "after=99").await.expect(200).until_end().await;
    assert_eq!(past.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), ["stream:sync", "stream:closing"]);
    assert_eq!((&past[0].data["cursor"], &past[0].data["resumed"]), (&json!("3"), &json!(false)));
    let at_the_head = service.poll("ride_1", "after=3&wait=20").await;
    assert_eq!((&at_the_head["closed"], &at_the_head["cursor"]), (&json!(true), &json!("3")));
    assert_eq!(at_the_head["state"]["ride"]["chat"], "readOnly");
    assert_eq!(driver.stream_from("ride_1", "", Some(&late.last_id)).await.status, 204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ride_that_is_still_in_its_grace_is_followed_as_any() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    driver.post_nothing("rides/ride_1/cancel").await.expect(200);
    let mut stream = rider.stream("ride_1", "after=0").await.expect(200);
    stream.next_sync().await;
    stream.find("ride:cancel").await;
    driver.send("ride_1", "You left your umbrella").await;
    stream.next_of("message:new").await;
    let poll = rider.poll("ride_1", "after=2&wait=0").await;
    assert_eq!(poll.get("closed").unwrap_or(&Value::Bool(false)), &Value::Bool(false));
}
