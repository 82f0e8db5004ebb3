//! Deletion by retention of logs and messages, and erasure of a user on request.

use serde_json::json;

use crate::support::{Database, Server, User, eventually};

/// Starts a server with short retention times.
async fn server_with_retention(database: &Database, log: &str, messages: &str) -> Server {
    let settings = [
        ("RIDEWIRE_CHAT_GRACE", "200ms"),
        ("RIDEWIRE_LOG_RETENTION", log),
        ("RIDEWIRE_MESSAGE_RETENTION", messages),
        ("RIDEWIRE_RETENTION_PERIOD", "200ms"),
    ];
    Server::start_with(database, &settings).await
}

async fn count(database: &Database, what: &str) -> i64 {
    let client = database.client().await;
    client.query_one(&format!("select count(*) from {what}"), &[]).await.unwrap().get(0)
}

async fn end(server: &Server, ride: &str) {
    server.service().post_empty(&format!("rides/{ride}/cancel")).await.expect(200);
}

/// Sends several times as many messages as retention deletes in a batch.
async fn send_messages(database: &Database, user: &User, ride: &str, messages: usize) -> i64 {
    let sends = (0..messages).map(|number| {
        let (user, ride) = (user.clone(), ride.to_owned());
        tokio::spawn(async move { user.send(&ride, &format!("message {number}")).await })
    });
    for send in sends.collect::<Vec<_>>() {
        send.await.unwrap();
    }
    database.head(ride).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_an_ended_ride_expires_and_its_cursors_get_a_gap() {
    let database = Database::create().await;
    let (server, other) =
        (server_with_retention(&database, "1s", "365d").await, server_with_retention(&database, "1s", "365d").await);
    let (rider, driver) = server.open_ride("ride_1").await;
    let (_, going_on) = server.open_ride("ride_2").await;
    send_messages(&database, &rider, "ride_1", 2_500).await;
    end(&server, "ride_1").await;
    let head = database.head("ride_1").await;
    eventually("retention deletes the log", async || {
        (count(&database, "events where topic = 'ride/ride_1'").await == 0).then_some(())
    })
    .await;
    eventually("the ride is marked as trimmed", async || {
        (count(&database, "rides where log_is_trimmed").await == 1).then_some(())
    })
    .await;

    for server in [&server, &other] {
        let rider = rider.on(server);
        let mut stream = rider.stream("ride_1", "after=2").await.expect(200);
        let sync = stream.next_sync().await;
        assert_eq!(sync["gap"], json!({ "from": 3, "to": head }));
        assert_eq!(sync["resumed"], false);
        assert_eq!(stream.next_event().await.kind, "stream:closing");
        let poll = rider.poll("ride_1", "after=2").await;
        assert_eq!((&poll["gap"], &poll["cursor"]), (&json!({ "from": 3, "to": head }), &json!(head.to_string())));
    }
    // The messages are kept longer. A ride that has not ended keeps its whole log.
    let history = driver.history("ride_1", "?limit=200").await;
    assert_eq!(history["messages"].as_array().unwrap().len(), 200);
    assert_eq!(going_on.poll("ride_2", "after=0").await["gap"], json!(null));
    // The participants' user events expire as well.
    eventually("the user events expire", async || {
        (count(&database, "events where topic like 'user/%' and data like '%ride_1%'").await == 0).then_some(())
    })
    .await;
    assert!(rider.poll_all("after=0").await["gap"].is_object());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_expire_later_together_with_all_data_of_the_ride() {
    let database = Database::create().await;
    let server = server_with_retention(&database, "300ms", "1s").await;
    let (rider, _driver) = server.open_ride("ride_1").await;
    send_messages(&database, &rider, "ride_1", 2_500).await;
    end(&server, "ride_1").await;
    eventually("everything expires", async || (count(&database, "rides").await == 0).then_some(())).await;
    for table in
        ["messages", "participants", "receipts", "topics where name like 'ride/%'", "presence_states", "events"]
    {
        eventually(table, async || (count(&database, table).await == 0).then_some(())).await;
    }
    rider.get("messages/rides/ride_1").await.problem(404, "ride_not_found");
    // The id can be used again. The log of the new ride begins anew.
    server.open_ride("ride_1").await;
    assert_eq!(rider.send("ride_1", "Hello again").await["seq"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_is_erased_from_messages_logs_and_the_memory_of_every_replica() {
    let database = Database::create().await;
    let (server, other) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, driver) = server.open_ride("ride_1").await;
    let mut watching = other.live_stream(&driver, "ride_1").await;
    for number in 0..450 {
        rider.send_with_id("ride_1", &format!("secret {number}"), &format!("name-{number}")).await.expect(201);
    }
    let kept = driver.send("ride_1", "mine").await;
    let edited = rider.send("ride_1", "secret before").await;
    rider.edit(&edited, "secret after").await.expect(200);
    server.service().broadcast(&["rider_1"], json!({ "secret": true })).await.expect(202);
    let last = database.head("ride_1").await;
    while watching.next_event().await.seq() < last {}

    for user in [&rider, &driver, &server.support()] {
        user.delete("users/rider_1").await.problem(403, "forbidden");
    }
    let erased = server.service().delete("users/rider_1").await.expect(200).json();
    assert_eq!(erased, json!({ "userId": "rider_1", "messages": 451 }));
    assert_eq!(server.service().delete("users/rider_1").await.expect(200).json()["messages"], 0);

    assert!(!database.contents().await.contains("secret"), "the content is deleted from the database");
    for number in 0..451 {
        assert_eq!(watching.next_of_type("message:deleted").await.data["by"], "platform", "{number}");
    }
    for server in [&server, &other] {
        let log = driver.on(server).poll("ride_1", "after=0").await.to_string();
        assert!(!log.contains("secret"));
    }
    let history = driver.history("ride_1", "?limit=200").await;
    let messages = history["messages"].as_array().unwrap();
    for message in messages {
        assert_eq!(message["content"].is_null(), message["id"] != kept["id"], "{message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_is_erased_from_all_their_rides_and_from_rides_with_their_staff_messages() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (service, support) = (server.service(), server.support());
    for ride in ["ride_1", "ride_2", "ride_3"] {
        let (rider, driver) = server.open_ride(ride).await;
        rider.send(ride, "mine").await;
        support.send(ride, "secret of support").await;
        driver.send(ride, "secret of the driver").await;
        driver.send(ride, "secret of the driver, again").await;
    }
    // A replaced driver has sent messages as well.
    service.put_ride("ride_1", "rider_1", Some("driver_2")).await.expect(200);
    let another = server.driver("driver_2");
    another.send("ride_1", "secret of another").await;
    service.put_ride("ride_1", "rider_1", Some("driver_1")).await.expect(200);
    server.driver("driver_1").send("ride_1", "secret of the returned driver").await;

    let messages_of = async |user: &str| {
        let erased = service.delete(&format!("users/{user}")).await.expect(200).json();
        erased["messages"].as_u64().unwrap()
    };
    assert_eq!(messages_of("driver_1").await, 7);
    assert!(!database.contents().await.contains("secret of the driver"));
    assert!(!database.contents().await.contains("secret of the returned driver"));
    assert_eq!(messages_of("support_1").await, 3);
    assert!(!database.contents().await.contains("secret of support"));
    assert!(database.contents().await.contains("secret of another"));
    assert_eq!(messages_of("driver_2").await, 1);
    assert_eq!(messages_of("nobody").await, 0);
    assert!(!database.contents().await.contains("secret"));
    for ride in ["ride_1", "ride_2", "ride_3"] {
        assert_eq!(server.rider("rider_1").history(ride, "").await["messages"][0]["content"], "mine");
    }
}
