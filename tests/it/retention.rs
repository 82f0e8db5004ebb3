//! What is taken away: old logs and messages, by retention; one person's content, on request.

use serde_json::json;

use crate::support::{Database, Server, User, eventually};

/// A server that keeps nothing for long.
async fn forgetful(database: &Database, log: &str, messages: &str) -> Server {
    let settings = [
        ("RIDEWIRE_CHAT_GRACE", "200ms"),
        ("RIDEWIRE_LOG_RETENTION", log),
        ("RIDEWIRE_MESSAGE_RETENTION", messages),
        ("RIDEWIRE_RETENTION_PERIOD", "200ms"),
    ];
    Server::with(database, &settings).await
}

async fn count(database: &Database, what: &str) -> i64 {
    let client = database.client().await;
    client.query_one(&format!("select count(*) from {what}"), &[]).await.unwrap().get(0)
}

async fn end(server: &Server, ride: &str) {
    server.service().post_nothing(&format!("rides/{ride}/cancel")).await.expect(200);
}

/// Several times as many events as one batch takes.
async fn talk(database: &Database, user: &User, ride: &str, messages: usize) -> i64 {
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
async fn the_log_of_an_ended_ride_goes_and_a_cursor_in_it_is_told_its_gap() {
    let database = Database::create().await;
    let (server, other) = (forgetful(&database, "1s", "365d").await, forgetful(&database, "1s", "365d").await);
    let (rider, driver) = server.open_ride("ride_1").await;
    let (_, going_on) = server.open_ride("ride_2").await;
    talk(&database, &rider, "ride_1", 2_500).await;
    end(&server, "ride_1").await;
    let head = database.head("ride_1").await;
    eventually("retention takes the log", async || {
        (count(&database, "events where topic = 'ride/ride_1'").await == 0).then_some(())
    })
    .await;
    eventually("the ride is marked", async || {
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
    // The messages are kept longer; and a ride that goes on keeps all of its log.
    let history = driver.history("ride_1", "?limit=200").await;
    assert_eq!(history["messages"].as_array().unwrap().len(), 200);
    assert_eq!(going_on.poll("ride_2", "after=0").await["gap"], json!(null));
    // What the people were told is as old, and taken as well.
    eventually("what users were told goes", async || {
        (count(&database, "events where topic like 'user/%' and data like '%ride_1%'").await == 0).then_some(())
    })
    .await;
    assert!(rider.poll_all("after=0").await["gap"].is_object());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_messages_go_later_and_all_of_the_ride_with_them() {
    let database = Database::create().await;
    let server = forgetful(&database, "300ms", "1s").await;
    let (rider, _driver) = server.open_ride("ride_1").await;
    talk(&database, &rider, "ride_1", 2_500).await;
    end(&server, "ride_1").await;
    eventually("all of it goes", async || (count(&database, "rides").await == 0).then_some(())).await;
    for table in
        ["messages", "participants", "receipts", "topics where name like 'ride/%'", "presence_states", "events"]
    {
        eventually(table, async || (count(&database, table).await == 0).then_some(())).await;
    }
    rider.get("messages/rides/ride_1").await.problem(404, "ride_not_found");
    // The id may be used again: another ride, whose log begins anew.
    server.open_ride("ride_1").await;
    assert_eq!(rider.send("ride_1", "Hello again").await["seq"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_is_erased_from_messages_logs_and_the_memory_of_every_replica() {
    let database = Database::create().await;
    let (server, other) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, driver) = server.open_ride("ride_1").await;
    let mut watching = other.live(&driver, "ride_1").await;
    for number in 0..450 {
        rider.send_named("ride_1", &format!("secret {number}"), &format!("name-{number}")).await.expect(201);
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

    assert!(!database.contents().await.contains("secret"), "nothing of it is left in the database");
    for number in 0..451 {
        assert_eq!(watching.next_of("message:deleted").await.data["by"], "platform", "{number}");
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
async fn a_person_is_erased_from_all_rides_they_were_on_and_from_where_they_spoke_as_staff() {
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
    // Who was taken off a ride has spoken there all the same.
    service.put_ride("ride_1", "rider_1", Some("driver_2")).await.expect(200);
    let another = server.driver("driver_2");
    another.send("ride_1", "secret of another").await;
    service.put_ride("ride_1", "rider_1", Some("driver_1")).await.expect(200);
    server.driver("driver_1").send("ride_1", "secret of who came back").await;

    let messages_of = async |user: &str| {
        let erased = service.delete(&format!("users/{user}")).await.expect(200).json();
        erased["messages"].as_u64().unwrap()
    };
    assert_eq!(messages_of("driver_1").await, 7);
    assert!(!database.contents().await.contains("secret of the driver"));
    assert!(!database.contents().await.contains("secret of who came back"));
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
