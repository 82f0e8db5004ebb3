//! Removal of the driver, after which the ride has status `requested` again.

use serde_json::{Value, json};

use crate::support::{Database, Server, User, data_types};

async fn remove_driver(service: &User, ride: &str) -> Value {
    service.put(&format!("rides/{ride}"), json!({ "riderId": "rider_1", "driverId": null })).await.expect(200).json()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_null_driver_id_removes_the_driver_with_the_same_events_as_a_replacement() {
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let service = one.service();
    let first = rider.send("ride_1", "Hello").await;
    let mut of_driver = two.live_stream(&driver, "ride_1").await;
    let mut of_rider = two.live_stream(&rider, "ride_1").await;
    let mut everything = driver.on(&two).stream_all("", None).await.expect(200);
    everything.next_sync().await;

    let ride = remove_driver(&service, "ride_1").await;
    assert_eq!(
        (&ride["status"], &ride["driverId"], &ride["chat"]),
        (&json!("requested"), &Value::Null, &json!("none"))
    );
    let left = of_rider.next_of_type("ride:participants").await;
    assert_eq!(left.data["left"], json!([{ "userId": "driver_1", "role": "driver" }]));
    assert_eq!(left.data["joined"], json!([]));
    assert_eq!((&left.data["ride"]["status"], &left.data["ride"]["chat"]), (&json!("requested"), &json!("none")));
    let status = of_rider.next_of_type("ride:status").await;
    assert_eq!((&status.data["ride"], &status.data["by"]), (&ride, &json!("platform")));

    let events = of_driver.until_end().await;
    let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["ride:participants", "stream:closing"]);
    assert_eq!(events[1].data, json!({ "reason": "removed" }));
    assert_eq!(everything.next_of_type("ride:participants").await.data, left.data);
    let closed = json!({ "rideId": "ride_1", "lastSeq": left.seq(), "reason": "removed" });
    assert_eq!(everything.next_of_type("ride:closed").await.data, closed);
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
        user.on(&two).send_with_id("ride_1", "Hello?", "m-1").await.problem(409, "chat_not_open");
    }

    // The ride has no driver.
    let before = database.contents().await;
    assert_eq!(remove_driver(&service, "ride_1").await, ride);
    assert_eq!(database.contents().await, before);

    // A second driver is assigned, and then the first one again.
    one.driver("driver_2").post_empty("rides/ride_1/accept").await.expect(200);
    rider.send("ride_1", "for the second").await;
    remove_driver(&service, "ride_1").await;
    service.put_ride("ride_1", "rider_1", Some("driver_1")).await.expect(200);
    let again = rider.send("ride_1", "for the first again").await;
    for server in [&one, &two] {
        let polled = driver.on(server).poll("ride_1", "after=0&wait=0&types=message:new").await;
        let ids: Vec<_> = polled["events"].as_array().unwrap().iter().map(|event| &event["data"]["id"]).collect();
        assert_eq!(ids, [&first["id"], &again["id"]]);
        let polled = driver.on(server).poll_pages("0", "types=message:new").await;
        let ids: Vec<_> = polled.iter().map(|event| &event["data"]["id"]).collect();
        assert_eq!(ids, [&first["id"], &again["id"]]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removing_the_driver_of_an_ended_ride_keeps_its_status() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    driver.post_empty("rides/ride_1/cancel").await.expect(200);
    let ride = remove_driver(&server.service(), "ride_1").await;
    assert_eq!((&ride["status"], &ride["driverId"]), (&json!("cancelled"), &Value::Null));
    let polled = rider.poll("ride_1", "after=1&wait=0").await;
    assert_eq!(data_types(&polled["events"]), ["ride:cancel", "ride:participants"]);
    driver.get("rides/ride_1").await.problem(404, "ride_not_found");
    // The rider can still write to support.
    rider.send("ride_1", "I left my umbrella").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn null_differs_from_an_omitted_field() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let service = server.service();
    let put = async |body: Value| service.put("rides/ride_1", body).await;
    put(json!({ "riderId": null })).await.invalid_field("/riderId");
    let ride = put(json!({ "riderId": "rider_1", "driverId": null })).await.expect(201).json();
    assert_eq!((&ride["status"], &ride["driverId"]), (&json!("requested"), &Value::Null));
    put(json!({ "riderId": "rider_1", "driverId": "driver_1" })).await.expect(200);
    put(json!({ "riderId": null, "driverId": null })).await.invalid_field("/riderId");
    let ride = put(json!({ "riderId": "rider_1", "status": "arrived" })).await.expect(200).json();
    assert_eq!((&ride["status"], &ride["driverId"]), (&json!("arrived"), &json!("driver_1")));
    // With a status, the ride continues from `requested`.
    let ride = put(json!({ "riderId": "rider_1", "driverId": null, "status": "cancelled" })).await.expect(200).json();
    assert_eq!((&ride["status"], &ride["driverId"]), (&json!("cancelled"), &Value::Null));
    let polled = service.poll("ride_1", "after=0&wait=0").await;
    let types = data_types(&polled["events"]);
    assert_eq!(types[types.len() - 2..], ["ride:participants", "ride:cancel"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_may_skip_statuses_and_goes_back_only_when_it_removes_the_driver() {
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
    let polled = service.poll("ride_1", "after=1&wait=0").await;
    assert_eq!(data_types(&polled["events"]), ["ride:status", "ride:status"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_location_from_an_earlier_interval_is_not_shown_when_the_driver_returns() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    driver.post("rides/ride_1/location", json!({ "lat": 1, "lng": 2 })).await.expect(202);
    rider.get("rides/ride_1/location").await.expect(200);
    remove_driver(&server.service(), "ride_1").await;
    rider.get("rides/ride_1/location").await.problem(404, "location_unknown");
    driver.post_empty("rides/ride_1/accept").await.expect(200);
    for user in [&rider, &driver, &server.support()] {
        user.get("rides/ride_1/location").await.problem(404, "location_unknown");
        assert_eq!(user.poll("ride_1", "").await["state"]["location"], Value::Null);
    }
    driver.post("rides/ride_1/location", json!({ "lat": 3, "lng": 4 })).await.expect(202);
    assert_eq!(rider.get("rides/ride_1/location").await.expect(200).json()["lat"], 3.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_driver_can_be_removed_with_the_same_status_and_without_a_rider_id() {
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
    server.driver("driver_2").post_empty("rides/ride_1/accept").await.expect(200);
    let ride = service.put("rides/ride_1", json!({ "driverId": null })).await.expect(200).json();
    assert_eq!((&ride["status"], &ride["riderId"]), (&json!("requested"), &json!("rider_1")));
    service.put("rides/ride_1", json!({ "riderId": null })).await.invalid_field("/riderId");
    service.put("rides/ride_2", json!({ "driverId": "driver_1" })).await.invalid_field("/riderId");
}
