//! A replica of a newer version on the same database, as during a rolling upgrade.

use serde_json::json;

use crate::support::{Database, Server, data_types};

/// Commits an event of a type that this version does not have, as a newer replica would.
async fn commit_unknown(database: &Database, ride: &str) {
    let commit = "with head as (update topics set last_seq = last_seq + 1 where name = $1 returning last_seq)
        insert into events (topic, seq, type, data, created_at)
        select $1, last_seq, 'ride:shared', '{\"with\":\"driver_1\"}', now() from head";
    database.client().await.execute(commit, &[&format!("ride/{ride}")]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_type_of_a_newer_version_is_delivered_unchanged() {
    let database = Database::create().await;
    let server = Server::start_with(&database, &[("RIDEWIRE_FALLBACK_POLL", "200ms")]).await;
    let (rider, driver) = server.open_ride("ride").await;
    let mut live = server.live_stream(&driver, "ride").await;
    let mut all = driver.stream_all("types=ride:shared,message:new", None).await;
    all.next_sync().await;

    rider.send("ride", "before").await;
    commit_unknown(&database, "ride").await;
    let shared = live.find("ride:shared").await;
    assert_eq!(shared.data, json!({"with": "driver_1"}));
    rider.send("ride", "after").await;
    assert_eq!(live.find("message:new").await.seq(), shared.seq() + 1);
    for kind in ["message:new", "ride:shared", "message:new"] {
        assert_eq!(all.next_event().await.kind, kind);
    }

    let replayed = rider.poll("ride", "after=0&wait=0").await;
    let types = ["ride:participants", "message:new", "ride:shared", "message:new"];
    assert_eq!(data_types(&replayed["events"])[..4], types);
    let shared = rider.poll("ride", "after=0&wait=0&types=ride:sh*").await;
    assert_eq!(data_types(&shared["events"]), ["ride:shared"]);
    assert_eq!(rider.history("ride", "").await["messages"].as_array().unwrap().len(), 2);
}

/// A participant with a role that this version does not have keeps the access to the log that every participant has, and cannot
/// write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_and_a_role_of_a_newer_version_are_passed_on_unchanged() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride").await;
    rider.send("ride", "before").await;
    let commit = "with ride as (update rides set status = 'boarding' where ride_id = 'ride'),
             person as (update participants set role = 'guide' where ride_id = 'ride' and user_id = $1)
        update topics set last_seq = last_seq where name = 'ride/ride'";
    database.client().await.execute(commit, &[&driver.name]).await.unwrap();

    // A replica that has cached nothing of the ride, as after a restart.
    let server = Server::start(&database).await;
    let (rider, driver) = (server.rider(&rider.name), server.driver(&driver.name));
    let ride = rider.get("rides/ride").await.expect(200).json();
    assert_eq!(ride["status"], "boarding");
    let listed = rider.get("rides").await.expect(200).json();
    assert_eq!(listed["rides"][0]["status"], "boarding");
    let polled = driver.poll("ride", "after=0&wait=0").await;
    assert!(data_types(&polled["events"]).contains(&"message:new"), "{polled}");
    let service = server.service();
    service.set_status("ride", "arrived").await.problem(409, "invalid_transition");
    driver.post("messages", json!({ "rideId": "ride", "content": "no" })).await.problem(409, "chat_closed");
    rider.send("ride", "after").await;
    service.post_empty("rides/ride/cancel").await.expect(200);
}
