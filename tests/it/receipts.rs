//! Receipts: delivered and read watermarks.

use serde_json::{Value, json};

use crate::support::{Database, Role, Server, User};

async fn flags(user: &User, message: &Value) -> (bool, bool) {
    let now = user.get(&format!("messages/{}", message["id"].as_str().unwrap())).await.expect(200).json();
    (now["isDelivered"].as_bool().unwrap(), now["isRead"].as_bool().unwrap())
}

async fn unread(user: &User, ride: &str) -> i64 {
    let response = user.get(&format!("messages/rides/{ride}/unread-count")).await.expect(200).json();
    assert_eq!(response["rideId"], ride);
    response["unreadCount"].as_i64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_covers_earlier_messages_never_moves_back_and_an_unchanged_one_creates_no_event() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let mut stream = server.live_stream(&server.service(), "ride_1").await;
    let mut sent = Vec::new();
    for number in 0..3 {
        sent.push(rider.send("ride_1", &number.to_string()).await);
        stream.next_of_type("message:new").await;
    }
    let receipt = driver.mark(&sent[1], "delivered").await.expect(200).json();
    assert_eq!(receipt, json!({ "rideId": "ride_1", "userId": "driver_1", "deliveredSeq": 3, "readSeq": 0 }));
    let event = stream.next_of_type("message:delivered").await;
    let expected = json!({
        "rideId": "ride_1", "userId": "driver_1", "seq": 3, "messageId": sent[1]["id"], "at": event.data["at"],
    });
    assert_eq!(event.data, expected);
    assert_eq!(flags(&rider, &sent[0]).await, (true, false));
    assert_eq!(flags(&rider, &sent[1]).await, (true, false));
    assert_eq!(flags(&rider, &sent[2]).await, (false, false));

    // Read implies delivered.
    let receipt = driver.mark(&sent[2], "read").await.expect(200).json();
    assert_eq!((&receipt["deliveredSeq"], &receipt["readSeq"]), (&json!(4), &json!(4)));
    let event = stream.find("message:read").await;
    assert_eq!((&event.data["seq"], &event.data["messageId"]), (&json!(4), &sent[2]["id"]));
    assert_eq!(flags(&rider, &sent[2]).await, (true, true));

    // A watermark never moves back, and an unchanged one creates no event.
    let before = database.contents().await;
    for (message, what) in [(0, "read"), (2, "read"), (0, "delivered"), (2, "delivered")] {
        assert_eq!(driver.mark(&sent[message], what).await.expect(200).json(), receipt);
    }
    // A user's own message is not a valid watermark position.
    let own = rider.mark(&sent[2], "read").await.expect(200).json();
    assert_eq!(own, json!({ "rideId": "ride_1", "userId": "rider_1", "deliveredSeq": 0, "readSeq": 0 }));
    assert_eq!(database.contents().await, before);

    // After an own message, the watermark stays at the last message of another user.
    driver.send("ride_1", "on my way").await;
    let mine = rider.send("ride_1", "good").await;
    let receipt = rider.mark(&mine, "read").await.expect(200).json();
    let reply_seq = mine["seq"].as_i64().unwrap() - 1;
    assert_eq!((&receipt["deliveredSeq"], &receipt["readSeq"]), (&json!(reply_seq), &json!(reply_seq)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_are_in_the_history_and_in_the_state_of_streams_and_polls() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let sent = rider.send("ride_1", "Hello").await;
    driver.mark(&sent, "read").await.expect(200);
    let mut expected = vec![
        json!({ "userId": "driver_1", "deliveredSeq": 2, "readSeq": 2 }),
        json!({ "userId": "rider_1", "deliveredSeq": 0, "readSeq": 0 }),
    ];
    expected.sort_by_key(|mark| mark["userId"].to_string());
    let sorted = |receipts: &Value| {
        let mut receipts = receipts.as_array().unwrap().clone();
        receipts.sort_by_key(|mark| mark["userId"].to_string());
        receipts
    };
    let service = server.service();
    assert_eq!(sorted(&service.history("ride_1", "").await["receipts"]), expected);
    assert_eq!(sorted(&service.poll("ride_1", "").await["state"]["receipts"]), expected);
    let sync = service.stream("ride_1", "").await.next_sync().await;
    assert_eq!(sorted(&sync["state"]["receipts"]), expected);
    assert_eq!(sync["state"]["asOf"], 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_of_support_are_its_own_and_mark_nothing_as_delivered() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let support = server.support();
    let sent = rider.send("ride_1", "Hello").await;
    let receipt = support.mark(&sent, "read").await.expect(200).json();
    assert_eq!((&receipt["userId"], &receipt["readSeq"]), (&json!("support_1"), &json!(2)));
    assert_eq!(flags(&rider, &sent).await, (false, false));
    assert_eq!(unread(&support, "ride_1").await, 0);
    assert_eq!(unread(&driver, "ride_1").await, 1);
    server.driver("stranger").mark(&sent, "read").await.problem(404, "message_not_found");
    server.driver("stranger").mark(&sent, "delivered").await.problem(404, "message_not_found");
    // Messages of support can be delivered and read as well.
    let support_message = support.send("ride_1", "Can we help?").await;
    rider.mark(&support_message, "delivered").await.expect(200);
    assert_eq!(flags(&support, &support_message).await, (true, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_unread_count_covers_undeleted_messages_of_others_after_the_read_watermark() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    server.service().put_ride("ride_2", "rider_1", Some("driver_2")).await.expect(201);
    server.service().put_ride("ride_3", "rider_3", Some("driver_1")).await.expect(201);
    let totals = async |user: &User| user.get("messages/unread-count").await.expect(200).json();
    assert_eq!(totals(&rider).await, json!({ "total": 0, "rides": [] }));

    let one = driver.send("ride_1", "one").await;
    driver.send("ride_1", "two").await;
    rider.send("ride_1", "mine").await;
    let deleted = driver.send("ride_1", "three").await;
    server.driver("driver_2").send("ride_2", "other").await;
    server.rider("rider_3").send("ride_3", "not yours").await;
    assert_eq!(unread(&rider, "ride_1").await, 3);
    driver.delete_message(&deleted).await.expect(204);
    assert_eq!(unread(&rider, "ride_1").await, 2);
    let expected = json!({
        "total": 3, "rides": [{ "rideId": "ride_1", "unreadCount": 2 }, { "rideId": "ride_2", "unreadCount": 1 }],
    });
    assert_eq!(totals(&rider).await, expected);

    rider.mark(&one, "delivered").await.expect(200);
    assert_eq!(unread(&rider, "ride_1").await, 2, "a delivered message is still unread");
    rider.mark(&one, "read").await.expect(200);
    assert_eq!(unread(&rider, "ride_1").await, 1);
    rider.mark(&deleted, "read").await.expect(200);
    assert_eq!(unread(&rider, "ride_1").await, 0);
    assert_eq!(totals(&rider).await["total"], 1);
    let rides = rider.get("rides").await.expect(200).json();
    let counts: Vec<_> = rides["rides"].as_array().unwrap().iter().map(|ride| &ride["unreadCount"]).collect();
    assert_eq!(counts, [&json!(1), &json!(0)], "newest first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_of_a_support_user_who_becomes_the_driver_have_the_driver_role() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let agent = server.user("agent", Role::Support);
    let before = rider.send("ride_1", "Hello").await;
    agent.mark(&before, "read").await.expect(200);
    assert_eq!(flags(&rider, &before).await, (false, false));
    server.service().put_ride("ride_1", "rider_1", Some("agent")).await.expect(200);
    let joined = rider.history("ride_1", "").await["receipts"].clone();
    let sent = rider.send("ride_1", "Where are you?").await;
    server.driver("agent").mark(&sent, "read").await.expect(200);
    // Both from the database and from the writer's cache.
    assert_eq!(flags(&rider, &sent).await, (true, true));
    let edited = rider.edit(&sent, "Where are you now?").await.expect(200).json();
    assert_eq!((&edited["isDelivered"], &edited["isRead"]), (&json!(true), &json!(true)));
    let users: Vec<_> = joined.as_array().unwrap().iter().map(|mark| mark["userId"].as_str().unwrap()).collect();
    assert_eq!(users, ["rider_1", "agent"], "each once");
}

/// A driver who was replaced and assigned again sees the messages of both intervals, and none between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_returned_driver_counts_the_messages_of_both_intervals_and_none_between() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let service = server.service();
    let totals = async || driver.get("messages/unread-count").await.expect(200).json()["total"].as_i64().unwrap();
    let listed = async || driver.get("rides").await.expect(200).json()["rides"][0]["unreadCount"].as_i64().unwrap();
    let first = rider.send("ride_1", "first").await;
    let second = rider.send("ride_1", "second").await;
    service.put_ride("ride_1", "rider_1", Some("driver_2")).await.expect(200);
    let between = rider.send("ride_1", "not for driver_1").await;
    service.put_ride("ride_1", "rider_1", Some("driver_1")).await.expect(200);
    assert_eq!((unread(&driver, "ride_1").await, totals().await, listed().await), (2, 2, 2));

    driver.mark(&between, "read").await.problem(404, "message_not_found");
    let receipt = driver.mark(&first, "read").await.expect(200).json();
    assert_eq!(receipt["readSeq"], first["seq"]);
    assert_eq!((unread(&driver, "ride_1").await, totals().await, listed().await), (1, 1, 1));
    // An own message: the watermark stays at the last message of another user that the driver can see.
    let own = driver.send("ride_1", "I am back").await;
    let receipt = driver.mark(&own, "read").await.expect(200).json();
    assert_eq!((&receipt["deliveredSeq"], &receipt["readSeq"]), (&second["seq"], &second["seq"]));
    assert_eq!((unread(&driver, "ride_1").await, totals().await, listed().await), (0, 0, 0));
    let third = rider.send("ride_1", "third").await;
    assert_eq!((unread(&driver, "ride_1").await, totals().await, listed().await), (1, 1, 1));
    assert_eq!(driver.mark(&third, "read").await.expect(200).json()["readSeq"], third["seq"]);

    // A participant who joins late has no unread messages from before and cannot mark them.
    service.put_ride("ride_1", "rider_1", Some("driver_3")).await.expect(200);
    let late = server.driver("driver_3");
    assert_eq!(unread(&late, "ride_1").await, 0);
    late.mark(&third, "delivered").await.problem(404, "message_not_found");
    let own = late.send("ride_1", "I am new").await;
    let receipt = late.mark(&own, "read").await.expect(200).json();
    assert_eq!((&receipt["deliveredSeq"], &receipt["readSeq"]), (&json!(0), &json!(0)));
}
