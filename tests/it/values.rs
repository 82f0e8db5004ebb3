//! Latest-only and ephemeral values: each goes to those whose part of the ride's log has reached the seq that it names.

use ridewire::domain::{Location, Position, RideId, Time, UserId};
use ridewire::store::{Prepared, Store, StoreConfig};
use serde_json::{Value, json};

use crate::support::{Database, Event, PATIENCE, Server, Stream, User};

/// Whether an event is a value: those have no id, and neither has the end of a stream.
fn is_value(event: &Event) -> bool {
    ["ride:location", "typing:indicator", "presence:online", "presence:offline"].contains(&event.kind.as_str())
}

/// Notifies the listeners of a value that another replica has told, and of no head.
async fn notify_value(database: &Database, kind: &str, user: &str, seq: i64, data: Value) {
    let version = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    let value = json!([["ride/ride_1", kind, user, version as i64, seq, data.to_string()]]);
    let payload = json!({ "v": 1, "values": value }).to_string();
    database.client().await.execute("select pg_notify('ridewire', $1)", &[&payload]).await.unwrap();
}

async fn whole(user: &User, server: &Server) -> Stream {
    let mut stream = user.on(server).stream_all("", None).await.expect(200);
    stream.next_sync().await;
    stream.hears_presence = true;
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_overtakes_the_log_waits_for_it_and_passes_by_whose_time_has_ended() {
    let database = Database::create().await;
    // Listens, and looks by itself at nothing; the other one tells it of nothing.
    let listens = Server::with(&database, &[("RIDEWIRE_FALLBACK_POLL", "1h")]).await;
    let silent = Server::with(&database, &[("RIDEWIRE_NOTIFY", "off"), ("RIDEWIRE_FALLBACK_POLL", "1h")]).await;
    for kind in ["ride:location", "typing:indicator", "presence:online"] {
        let service = silent.service();
        let ride = service.put_ride("ride_1", "rider_1", Some("driver_1")).await;
        assert!(ride.status == 201 || ride.status == 200, "{}", ride.status);
        let head = database.head("ride_1").await;
        let (rider, old) = (listens.rider("rider_1"), listens.driver("driver_1"));
        let mut of_ride = [listens.live(&old, "ride_1").await, listens.live(&rider, "ride_1").await];
        of_ride.iter_mut().for_each(|stream| stream.hears_presence = true);
        let mut of_all = [whole(&old, &listens).await, whole(&rider, &listens).await];
        // Once they are known to be there, nothing more is told of them.
        settled(&rider).await;

        service.put_ride("ride_1", "rider_1", Some("driver_2")).await.expect(200);
        notify_value(&database, kind, "driver_2", head + 1, json!({ "of": "driver_2" })).await;
        let of_driver_2 = |event: &Event| is_value(event) && event.data["of"] == "driver_2";
        let until = |stream: Vec<Event>| stream.into_iter().filter(|event| event.id.is_some() || of_driver_2(event));
        let ended = until(of_ride[0].until_end().await).map(|event| event.kind).collect::<Vec<_>>();
        assert_eq!(ended, ["ride:participants"], "{kind}: what the replaced driver is told");
        for stream in [&mut of_ride[1], &mut of_all[1]] {
            let mut told = Vec::new();
            while told.last().is_none_or(|last| last != kind) {
                let next = stream.next_event().await;
                told.extend((next.id.is_some() || of_driver_2(&next)).then_some(next.kind));
            }
            told.retain(|kind| kind != "ride:assigned" && kind != "ride:closed");
            assert_eq!(told, ["ride:participants", kind], "what the rider is told");
        }
        // The end of it for the one who follows everything: their own topic is read up to here.
        listens.service().broadcast(&["driver_1"], json!({})).await.expect(202);
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

/// Waits until both of a ride's people are known to follow it.
async fn settled(user: &User) {
    crate::support::eventually("both are there", async || {
        let answer = user.get("messages/rides/ride_1/presence").await.expect(200).json();
        let people = answer["participants"].as_array().unwrap().clone();
        people.iter().all(|one| one["online"] == true).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_notify_a_replaced_driver_is_not_told_where_the_next_one_is() {
    let database = Database::create().await;
    let deaf = [("RIDEWIRE_NOTIFY", "off"), ("RIDEWIRE_FALLBACK_POLL", "100ms")];
    let (one, two) = (Server::with(&database, &deaf).await, Server::with(&database, &deaf).await);
    let (old, new) = (one.driver("driver_1"), two.driver("driver_2"));
    let mut streams = Vec::new();
    for number in 0..10 {
        let ride = format!("ride_{number}");
        two.service().put_ride(&ride, "rider_1", Some("driver_1")).await.expect(201);
        streams.push(one.live(&old, &ride).await);
    }
    for number in 0..10 {
        let ride = format!("ride_{number}");
        two.service().put_ride(&ride, "rider_1", Some("driver_2")).await.expect(200);
        new.post(&format!("rides/{ride}/location"), json!({ "lat": 1, "lng": 2 })).await.expect(202);
    }
    for stream in &mut streams {
        let told = stream.until_end().await;
        assert!(!told.iter().any(is_value), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_driver_is_told_the_values_of_their_time_and_none_from_before() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, old) = server.open_ride("ride_1").await;
    let driver = server.driver("driver_2");
    let mut stream = whole(&driver, &server).await;
    old.post("rides/ride_1/location", json!({ "lat": 1, "lng": 1 })).await.expect(202);
    rider.post("messages/rides/ride_1/typing", json!({ "typing": true })).await.expect(202);
    server.service().put_ride("ride_1", "rider_1", Some("driver_2")).await.expect(200);
    let sync = driver.stream("ride_1", "").await.next_sync().await;
    assert_eq!((&sync["state"]["typing"], &sync["state"]["location"]), (&json!([]), &Value::Null));
    driver.post("rides/ride_1/location", json!({ "lat": 2, "lng": 2 })).await.expect(202);
    let told = stream.find("ride:location").await;
    assert_eq!((&told.data["lat"], &told.data["driverId"]), (&json!(2.0), &json!("driver_2")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_position_of_a_replaced_driver_does_not_take_the_place_of_the_next_ones() {
    let database = Database::create().await;
    let config = StoreConfig {
        postgres: database.url.parse().unwrap(),
        connections: 1,
        patience: PATIENCE,
        prepared: Prepared::On,
        plans_age: PATIENCE,
    };
    let store = Store::new(config).unwrap();
    let put = async |driver: &str, seq| {
        let location = Location {
            ride: RideId::parse("ride_1").unwrap(),
            driver: UserId::parse(driver).unwrap(),
            position: Position { lat: 1.0, lng: 2.0 },
            heading: None,
            speed: None,
            accuracy: None,
            at: Time::now(),
        };
        store.put_location(&location, seq).await.unwrap().is_some()
    };
    assert!(put("driver_1", 2).await);
    assert!(put("driver_2", 3).await, "who has replaced them");
    assert!(!put("driver_1", 2).await, "it was on its way");
    assert!(put("driver_2", 3).await && put("driver_1", 4).await, "and is put back");
}
