//! A driver who is removed, and the ride that looks for another.

use serde_json::{Value, json};

use crate::support::{Database, Server, User, data_types};

async fn remove_driver(service: &User, ride: &str) -> Value {
    service.put(&format!("rides/{ride}"), json!({ "riderId": "rider_1", "driverId": null })).await.expect(200).json()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn null_removes_the_driver_who_leaves_as_a_replaced_one_does() {
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let service = one.service();
    let first = rider.send("ride_1", "Hello").await;
    let mut of_driver = two.live(&driver, "ride_1").await;
    let mut of_rider = two.live(&rider, "ride_1").await;
    let mut everything = driver.on(&two).stream_all("", None).await.expect(200);
    everything.next_sync().await;

    let ride = remove_driver(&service, "ride_1").await;
    assert_eq!(
        (&ride["status"], &ride["driverId"], &ride["chat"]),
        (&json!("requested"), &Value::Null, &json!("none"))
    );
    let left = of_rider.next_of("ride:participants").await;
    assert_eq!(left.data["left"], json!([{ "userId": "driver_1", "role": "driver" }]));
    assert_eq!(left.data["joined"], json!([]));
    assert_eq!((&left.data["ride"]["status"], &left.data["ride"]["chat"]), (&json!("requested"), &json!("none")));
    let status = of_rider.next_of("ride:status").await;
    assert_eq!((&status.data["ride"], &status.data["by"]), (&ride, &json!("platform")));

    let events = of_driver.until_end().await;
    let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["ride:participants", "stream:closing"]);
    assert_eq!(events[1].data, json!({ "reason": "removed" }));
    assert_eq!(everything.next_of("ride:participants").await.data, left.data);
    let closed = json!({ "rideId": "ride_1", "lastSeq": left.seq(), "reason": "removed" });
    assert_eq!(everything.next_of("ride:closed").await.data, closed);
    for server in [&one, &two] {
        let driver = driver.on(server);
        driver.get("rides/ride_1").await.problem(404, "ride_not_found");
        driver.get("messages/rides/ride_1").await.problem(404, "ride_not_found");
        let polled = driver.poll("ride_1", "after=0&wait=0").await;
        assert_eq!(polled["closed"], true);
        assert_eq!(polled["events"].as_array().unwrap().last().unwrap()["id"], json!(left.seq().to_string()));
        assert_eq!(polled["state"]["ride"]["status"], "requested");
    }
    for user in [&rider, &one.support(), &service] {
        user.on(&two).send_named("ride_1", "Anybody?", "m-1").await.problem(409, "chat_not_open");
    }

    // There is none to be removed.
    let before = database.contents().await;
    assert_eq!(remove_driver(&service, "ride_1").await, ride);
    assert_eq!(database.contents().await, before);

    // A dispatcher finds another; then the first comes back.
    one.driver("driver_2").post_nothing("rides/ride_1/accept").await.expect(200);
    rider.send("ride_1", "for the second").await;
    remove_driver(&service, "ride_1").await;
    service.put_ride("ride_1", "rider_1", Some("driver_1")).await.expect(200);
    let again = rider.send("ride_1", "for the first again").await;
    for server in [&one, &two] {
        let told = driver.on(server).poll("ride_1", "after=0&wait=0&types=message:new").await;
        let said: Vec<_> = told["events"].as_array().unwrap().iter().map(|event| &event["data"]["id"]).collect();
        assert_eq!(said, [&first["id"], &again["id"]]);
        let told = driver.on(server).poll_all("after=0&wait=0&types=message:new").await;
        let said: Vec<_> = told["events"].as_array().unwrap().iter().map(|event| &event["data"]["id"]).collect();
        assert_eq!(said, [&first["id"], &again["id"]], "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_driver_of_an_ended_ride_leaves_and_it_stays_ended() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    driver.post_nothing("rides/ride_1/cancel").await.expect(200);
    let ride = remove_driver(&server.service(), "ride_1").await;
    assert_eq!((&ride["status"], &ride["driverId"]), (&json!("cancelled"), &Value::Null));
    let told = rider.poll("ride_1", "after=1&wait=0").await;
    assert_eq!(data_types(&told["events"]), ["ride:cancel", "ride:participants"]);
    driver.get("rides/ride_1").await.problem(404, "ride_not_found");
    // The rider may still write to support.
    rider.send("ride_1", "I left my umbrella").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_null_is_told_from_what_is_left_out() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let service = server.service();
    let put = async |body: Value| service.put("rides/ride_1", body).await;
    put(json!({ "riderId": null })).await.wrong_field("/riderId");
    let ride = put(json!({ "riderId": "rider_1", "driverId": null })).await.expect(201).json();
    assert_eq!((&ride["status"], &ride["driverId"]), (&json!("requested"), &Value::Null));
    put(json!({ "riderId": "rider_1", "driverId": "driver_1" })).await.expect(200);
    put(json!({ "riderId": null, "driverId": null })).await.wrong_field("/riderId");
    let ride = put(json!({ "riderId": "rider_1", "status": "arrived" })).await.expect(200).json();
    assert_eq!((&ride["status"], &ride["driverId"]), (&json!("arrived"), &json!("driver_1")));
    // With a status the ride goes on from requested.
    let ride = put(json!({ "riderId": "rider_1", "driverId": null, "status": "cancelled" })).await.expect(200).json();
    assert_eq!((&ride["status"], &ride["driverId"]), (&json!("cancelled"), &Value::Null));
    let told = service.poll("ride_1", "after=0&wait=0").await;
    let types = data_types(&told["events"]);
    assert_eq!(types[types.len() - 2..], ["ride:participants", "ride:cancel"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_may_skip_steps_and_goes_back_only_where_the_driver_is_removed() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let service = server.service();
    service.put_ride("ride_1", "rider_1", Some("driver_1")).await.expect(201);
    let put = async |status: &str| service.put("rides/ride_1", json!({ "riderId": "rider_1", "status": status })).await;
    put("requested").await.problem(409, "invalid_transition");
    assert_eq!(put("in_progress").await.expect(200).json()["status"], "in_progress");
    put("arrived").await.problem(409, "invalid_transition");
    assert_eq!(put("completed").await.expect(200).json()["status"], "completed");
    put("cancelled").await.problem(409, "invalid_transition");
    let told = service.poll("ride_1", "after=1&wait=0").await;
    assert_eq!(data_types(&told["events"]), ["ride:status", "ride:status"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_location_of_a_driver_before_is_not_that_of_the_same_driver_again() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    driver.post("rides/ride_1/location", json!({ "lat": 1, "lng": 2 })).await.expect(202);
    rider.get("rides/ride_1/location").await.expect(200);
    remove_driver(&server.service(), "ride_1").await;
    rider.get("rides/ride_1/location").await.problem(404, "location_unknown");
    driver.post_nothing("rides/ride_1/accept").await.expect(200);
    for user in [&rider, &driver, &server.support()] {
        user.get("rides/ride_1/location").await.problem(404, "location_unknown");
        assert_eq!(user.poll("ride_1", "").await["state"]["location"], Value::Null);
    }
    driver.post("rides/ride_1/location", json!({ "lat": 3, "lng": 4 })).await.expect(202);
    assert_eq!(rider.get("rides/ride_1/location").await.expect(200).json()["lat"], 3.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_is_removed_whatever_status_is_said_again_and_the_rider_need_not_be_named() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let service = server.service();
    server.open_ride("ride_1").await;
    service.set_status("ride_1", "arrived").await.expect(200);
    let other = service.put("rides/ride_1", json!({ "driverId": null, "status": "in_progress" })).await;
    other.problem(409, "invalid_transition");
    let same = json!({ "riderId": "rider_1", "driverId": null, "status": "arrived" });
    let ride = service.put("rides/ride_1", same).await.expect(200).json();
    assert_eq!(
        (&ride["status"], &ride["driverId"], &ride["chat"]),
        (&json!("requested"), &json!(null), &json!("none"))
    );
    server.driver("driver_2").post_nothing("rides/ride_1/accept").await.expect(200);
    let ride = service.put("rides/ride_1", json!({ "driverId": null })).await.expect(200).json();
    assert_eq!((&ride["status"], &ride["riderId"]), (&json!("requested"), &json!("rider_1")));
    service.put("rides/ride_1", json!({ "riderId": null })).await.wrong_field("/riderId");
    service.put("rides/ride_2", json!({ "driverId": "driver_1" })).await.wrong_field("/riderId");
}
