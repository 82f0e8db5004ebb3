//! The lifecycle of a ride.

use serde_json::{Value, json};

use crate::support::{Database, Server, data_types};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_a_new_ride_begins_with_its_participants() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let service = server.service();
    let ride = service.put_ride("ride_1", "rider_1", None).await.expect(201).json();
    let expected = json!({
        "rideId": "ride_1", "status": "requested", "riderId": "rider_1", "driverId": null, "chat": "none", "chatPolicy": null,
        "createdAt": ride["createdAt"], "updatedAt": ride["updatedAt"],
    });
    assert_eq!(ride, expected);
    let log = service.poll("ride_1", "after=0").await;
    assert_eq!(data_types(&log["events"]), ["ride:participants"]);
    assert_eq!(log["events"][0]["id"], "1");
    let participants = &log["events"][0]["data"];
    assert_eq!(participants["joined"], json!([{ "userId": "rider_1", "role": "rider" }]));
    assert_eq!((&participants["left"], &participants["ride"]["rideId"]), (&json!([]), &json!("ride_1")));

    let ride = service.put_ride("ride_2", "rider_1", Some("driver_1")).await.expect(201).json();
    assert_eq!(
        (&ride["status"], &ride["chat"], &ride["driverId"]),
        (&json!("accepted"), &json!("open"), &json!("driver_1"))
    );
    let log = service.poll("ride_2", "after=0").await;
    assert_eq!(data_types(&log["events"]), ["ride:participants"]);
    assert_eq!(log["events"][0]["data"]["joined"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_put_creates_no_event_and_omitted_fields_keep_their_value() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let service = server.service();
    service.put_ride("ride_1", "rider_1", None).await.expect(201);
    let before = database.contents().await;
    service.put_ride("ride_1", "rider_1", None).await.expect(200);
    assert_eq!(database.contents().await, before);

    let ride = service.put_ride("ride_1", "rider_1", Some("driver_1")).await.expect(200).json();
    assert_eq!(
        (&ride["status"], &ride["chat"]),
        (&json!("accepted"), &json!("open")),
        "the first driver accepts the ride"
    );
    let log = service.poll("ride_1", "after=1").await;
    assert!(data_types(&log["events"]).contains(&"ride:participants"), "{log}");
    let before = database.contents().await;
    assert_eq!(service.put_ride("ride_1", "rider_1", Some("driver_1")).await.expect(200).json(), ride);
    assert_eq!(service.put_ride("ride_1", "rider_1", None).await.expect(200).json(), ride);
    let same = json!({ "riderId": "rider_1", "driverId": "driver_1", "status": "accepted" });
    assert_eq!(service.put("rides/ride_1", same).await.expect(200).json(), ride);
    assert_eq!(database.contents().await, before);

    let arrived = service.put("rides/ride_1", json!({ "riderId": "rider_1", "status": "arrived" })).await.expect(200);
    assert_eq!((&arrived.json()["status"], &arrived.json()["driverId"]), (&json!("arrived"), &json!("driver_1")));
    let replaced = service.put_ride("ride_1", "rider_1", Some("driver_2")).await.expect(200).json();
    assert_eq!((&replaced["status"], &replaced["driverId"]), (&json!("arrived"), &json!("driver_2")));
    let log = service.poll("ride_1", "after=0").await;
    let participants = &log["events"].as_array().unwrap().last().unwrap()["data"];
    assert_eq!(participants["left"], json!([{ "userId": "driver_1", "role": "driver" }]));
    assert_eq!(participants["joined"], json!([{ "userId": "driver_2", "role": "driver" }]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_advances_one_step_at_a_time_or_is_cancelled() {
    const STEPS: [&str; 6] = ["requested", "accepted", "arrived", "in_progress", "completed", "cancelled"];
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let service = server.service();
    for (at, from) in STEPS.iter().enumerate() {
        let ride = format!("from_{from}");
        let body = json!({ "riderId": "rider_1", "driverId": "driver_1", "status": from });
        assert_eq!(service.put(&format!("rides/{ride}"), body).await.expect(201).json()["status"], *from);
        let before = database.contents().await;
        assert_eq!(service.set_status(&ride, from).await.expect(200).json()["status"], *from);
        for (to, next) in STEPS.iter().enumerate().filter(|(to, _)| *to != at) {
            let is_step = to == at + 1 && to < 5 || to == 5 && at < 4;
            if !is_step {
                service.set_status(&ride, next).await.problem(409, "invalid_transition");
            }
        }
        assert_eq!(database.contents().await, before);
    }
    let driver = server.driver("driver_1");
    for next in ["accepted", "arrived", "in_progress", "completed"] {
        assert_eq!(driver.set_status("from_requested", next).await.expect(200).json()["status"], next);
    }
    let log = service.poll("from_requested", "after=1").await;
    assert_eq!(log["events"].as_array().unwrap().len(), 4);
    let last = &log["events"][3];
    assert_eq!((&last["type"], &last["data"]["by"]), (&json!("ride:status"), &json!("driver_1")));
    assert_eq!(last["data"]["ride"]["status"], "completed");
    driver.post_empty("rides/from_requested/cancel").await.problem(409, "invalid_transition");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_concurrent_accepts_on_two_replicas_wins() {
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    for number in 0..10 {
        let ride = format!("ride_{number}");
        one.service().put_ride(&ride, "rider_1", None).await.expect(201);
        let path = format!("rides/{ride}/accept");
        let (first, second) = (one.driver("driver_1"), two.driver("driver_2"));
        let answers = tokio::join!(first.post_empty(&path), second.post_empty(&path));
        let (winner, accepted, rejected) = match answers.0.status.as_u16() {
            200 => (first, answers.0, answers.1),
            _ => (second, answers.1, answers.0),
        };
        let accepted = accepted.expect(200).json();
        rejected.problem(409, "ride_conflict");
        assert_eq!((&accepted["driverId"], &accepted["status"]), (&json!(winner.name), &json!("accepted")));
        let head = database.head(&ride).await;
        assert_eq!(
            winner.post_empty(&path).await.expect(200).json(),
            accepted,
            "a repeated accept of the same driver succeeds"
        );
        assert_eq!(database.head(&ride).await, head);
        let log = two.service().poll(&ride, "after=0").await;
        let accepts: Vec<&Value> =
            log["events"].as_array().unwrap().iter().filter(|event| event["type"] == "ride:accept").collect();
        assert_eq!(accepts.len(), 1);
        assert_eq!(accepts[0]["data"]["by"], json!(winner.name));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_ride_has_its_user_and_reason() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let mut stream = server.live_stream(&driver, "ride_1").await;
    let reason = "Plans changed — sorry 🙏";
    let ride = rider.post("rides/ride_1/cancel", json!({ "reason": reason })).await.expect(200).json();
    assert_eq!(ride["status"], "cancelled");
    let event = stream.next_of_type("ride:cancel").await;
    assert_eq!((&event.data["by"], &event.data["reason"]), (&json!("rider_1"), &json!(reason)));
    assert_eq!(event.data["ride"]["status"], "cancelled");
    let head = database.head("ride_1").await;
    driver.post_empty("rides/ride_1/cancel").await.expect(200);
    assert_eq!(database.head("ride_1").await, head, "a repetition creates no event");
    driver.set_status("ride_1", "arrived").await.problem(409, "invalid_transition");
    // The chat stays open during the grace period.
    rider.send("ride_1", "I left my umbrella").await;

    for (ride, user) in [("ride_2", driver.clone()), ("ride_3", server.support()), ("ride_4", server.service())] {
        server.open_ride(ride).await;
        user.post(&format!("rides/{ride}/cancel"), json!({})).await.expect(200);
    }
    server.open_ride("ride_5").await;
    server.rider("stranger").post_empty("rides/ride_5/cancel").await.problem(404, "ride_not_found");
    let long = json!({ "reason": "x".repeat(10_000) });
    rider.post("rides/ride_5/cancel", long).await.invalid_field("/reason");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ride_list_is_newest_first_with_last_message_and_unread_count() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let rider = server.rider("rider_1");
    for number in 1..=5 {
        server.service().put_ride(&format!("ride_{number}"), "rider_1", Some("driver_1")).await.expect(201);
    }
    server.service().put_ride("other", "rider_2", Some("driver_2")).await.expect(201);
    let last_message = server.driver("driver_1").send("ride_2", "Hello").await;
    server.driver("driver_1").set_status("ride_3", "arrived").await.expect(200);

    let names = |page: &Value| -> Vec<String> {
        let rides = page["rides"].as_array().unwrap();
        rides.iter().map(|ride| ride["rideId"].as_str().unwrap().to_owned()).collect()
    };
    let all = rider.get("rides").await.expect(200).json();
    assert_eq!(names(&all), ["ride_5", "ride_4", "ride_3", "ride_2", "ride_1"]);
    assert_eq!((&all["rides"][3]["lastMessage"], &all["rides"][3]["unreadCount"]), (&last_message, &json!(1)));
    assert_eq!((&all["rides"][0]["lastMessage"], &all["rides"][0]["unreadCount"]), (&Value::Null, &json!(0)));
    assert_eq!(names(&rider.get("rides?limit=2").await.json()), ["ride_5", "ride_4"]);
    assert_eq!(names(&rider.get("rides?limit=2&before=ride_4").await.json()), ["ride_3", "ride_2"]);
    assert_eq!(names(&rider.get("rides?status=arrived").await.json()), ["ride_3"]);
    assert_eq!(names(&server.rider("nobody").get("rides").await.json()), Vec::<String>::new());
    for wrong in ["limit=0", "limit=-1", "status=finished", "status=", "before=a%20b"] {
        rider.get(&format!("rides?{wrong}")).await.problem(400, "invalid_request");
    }
}
