//! Latest-only and ephemeral events: a reader gets one if the seq that it names is in the reader's part of the log.

use ridewire::domain::{Coordinates, Location, RideId, Time, UserId};
use ridewire::store::{Prepared, Store, StoreConfig, pool_wait_histogram};
use serde_json::{Value, json};

use crate::support::{Database, Event, Server, Stream, TIMEOUT, User};

/// Returns whether an event is latest-only or ephemeral. Those have no id, and neither has `stream:closing`.
fn is_value(event: &Event) -> bool {
    ["ride:location", "typing:indicator", "presence:online", "presence:offline"].contains(&event.kind.as_str())
}

/// Notifies the listeners of a value from another replica, without a head.
async fn notify_value(database: &Database, kind: &str, user: &str, seq: i64, data: Value) {
    let version = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    let value = json!([["ride/ride_1", kind, user, version as i64, seq, data.to_string()]]);
    let payload = json!({ "v": 1, "values": value }).to_string();
    database.client().await.execute("select pg_notify('ridewire', $1)", &[&payload]).await.unwrap();
}

async fn merged_stream(user: &User, server: &Server) -> Stream {
    let mut stream = user.on(server).stream_all("", None).await.expect(200);
    stream.next_sync().await;
    stream.includes_presence = true;
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_latest_only_value_ahead_of_the_log_waits_and_skips_removed_readers() {
    let database = Database::create().await;
    // The first replica listens but does not poll. The second one sends it no values.
    let notified = Server::start_with(&database, &[("RIDEWIRE_FALLBACK_POLL", "1h")]).await;
    let without_notify =
        Server::start_with(&database, &[("RIDEWIRE_NOTIFY", "off"), ("RIDEWIRE_FALLBACK_POLL", "1h")]).await;
    for kind in ["ride:location", "typing:indicator", "presence:online"] {
        let service = without_notify.service();
        let ride = service.put_ride("ride_1", "rider_1", Some("driver_1")).await;
        assert!(ride.status == 201 || ride.status == 200, "{}", ride.status);
        let head = database.head("ride_1").await;
        let (rider, old) = (notified.rider("rider_1"), notified.driver("driver_1"));
        let mut of_ride = [notified.live_stream(&old, "ride_1").await, notified.live_stream(&rider, "ride_1").await];
        of_ride.iter_mut().for_each(|stream| stream.includes_presence = true);
        let mut of_all = [merged_stream(&old, &notified).await, merged_stream(&rider, &notified).await];
        // After their presence is known, no more presence events follow.
        wait_until_online(&rider).await;

        service.put_ride("ride_1", "rider_1", Some("driver_2")).await.expect(200);
        notify_value(&database, kind, "driver_2", head + 1, json!({ "of": "driver_2" })).await;
        let of_driver_2 = |event: &Event| is_value(event) && event.data["of"] == "driver_2";
        let until = |stream: Vec<Event>| stream.into_iter().filter(|event| event.id.is_some() || of_driver_2(event));
        let ended = until(of_ride[0].until_end().await).map(|event| event.kind).collect::<Vec<_>>();
        assert_eq!(ended, ["ride:participants"], "{kind}: the events of the replaced driver");
        for stream in [&mut of_ride[1], &mut of_all[1]] {
            let mut received = Vec::new();
            while received.last().is_none_or(|last| last != kind) {
                let next = stream.next_event().await;
                received.extend((next.id.is_some() || of_driver_2(&next)).then_some(next.kind));
            }
            received.retain(|kind| kind != "ride:assigned" && kind != "ride:closed");
            assert_eq!(received, ["ride:participants", kind], "the events of the rider");
        }
        // The merged stream ends here for this ride: the user topic is read up to this point.
        notified.service().broadcast(&["driver_1"], json!({})).await.expect(202);
        loop {
            let next = of_all[0].next_event().await;
            assert!(!of_driver_2(&next), "{next:?}");
            if next.kind == "notice" {
                break;
            }
        }
        drop((of_ride, of_all));
        service.put_ride("ride_1", "rider_1", Some("driver_1")).await.expect(200);
    }
}

/// Waits until both participants are online.
async fn wait_until_online(user: &User) {
    crate::support::eventually("both participants are online", async || {
        let response = user.get("messages/rides/ride_1/presence").await.expect(200).json();
        let participants = response["participants"].as_array().unwrap().clone();
        participants.iter().all(|one| one["online"] == true).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_notify_a_replaced_driver_does_not_get_the_location_of_the_next_driver() {
    let database = Database::create().await;
    let without_notify = [("RIDEWIRE_NOTIFY", "off"), ("RIDEWIRE_FALLBACK_POLL", "100ms")];
    let (one, two) =
        (Server::start_with(&database, &without_notify).await, Server::start_with(&database, &without_notify).await);
    let (old, new) = (one.driver("driver_1"), two.driver("driver_2"));
    let mut streams = Vec::new();
    for number in 0..10 {
        let ride = format!("ride_{number}");
        two.service().put_ride(&ride, "rider_1", Some("driver_1")).await.expect(201);
        streams.push(one.live_stream(&old, &ride).await);
    }
    for number in 0..10 {
        let ride = format!("ride_{number}");
        two.service().put_ride(&ride, "rider_1", Some("driver_2")).await.expect(200);
        new.post(&format!("rides/{ride}/location"), json!({ "lat": 1, "lng": 2 })).await.expect(202);
    }
    for stream in &mut streams {
        let received = stream.until_end().await;
        assert!(!received.iter().any(is_value), "{received:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_driver_gets_no_latest_only_values_from_before_their_from_seq() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, old) = server.open_ride("ride_1").await;
    let driver = server.driver("driver_2");
    let mut stream = merged_stream(&driver, &server).await;
    old.post("rides/ride_1/location", json!({ "lat": 1, "lng": 1 })).await.expect(202);
    rider.post("messages/rides/ride_1/typing", json!({ "typing": true })).await.expect(202);
    server.service().put_ride("ride_1", "rider_1", Some("driver_2")).await.expect(200);
    let sync = driver.stream("ride_1", "").await.next_sync().await;
    assert_eq!((&sync["state"]["typing"], &sync["state"]["location"]), (&json!([]), &Value::Null));
    driver.post("rides/ride_1/location", json!({ "lat": 2, "lng": 2 })).await.expect(202);
    let received = stream.find("ride:location").await;
    assert_eq!((&received.data["lat"], &received.data["driverId"]), (&json!(2.0), &json!("driver_2")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_location_of_a_replaced_driver_does_not_replace_that_of_the_new_driver() {
    let database = Database::create().await;
    let config = StoreConfig {
        postgres: database.url.parse().unwrap(),
        connections: 1,
        timeout: TIMEOUT,
        prepared: Prepared::On,
        plan_ttl: TIMEOUT,
        pool_wait: pool_wait_histogram().unwrap(),
    };
    let store = Store::new(config).unwrap();
    let put = async |driver: &str, seq| {
        let location = Location {
            ride: RideId::parse("ride_1").unwrap(),
            driver: UserId::parse(driver).unwrap(),
            coordinates: Coordinates { lat: 1.0, lng: 2.0 },
            heading: None,
            speed: None,
            accuracy: None,
            at: Time::now(),
        };
        store.put_location(&location, seq).await.unwrap().is_some()
    };
    assert!(put("driver_1", 2).await);
    assert!(put("driver_2", 3).await, "the new driver's location is accepted");
    assert!(!put("driver_1", 2).await, "a late location of the old driver is ignored");
    assert!(put("driver_2", 3).await && put("driver_1", 4).await, "the driver assigned again is accepted");
}
