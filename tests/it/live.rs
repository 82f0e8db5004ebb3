//! What has no place in the log: typing, presence, the driver's location; and what lets an `EventSource` in.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Database, Server, Stream, User, eventually};

async fn person(user: &User, name: &str) -> Value {
    let presence = user.get("messages/rides/ride_1/presence").await.expect(200).json();
    let people = presence["participants"].as_array().unwrap().clone();
    people.into_iter().find(|one| one["userId"] == name).unwrap_or_else(|| panic!("no {name} in {presence}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn typing_is_told_on_every_replica_and_ends_by_itself() {
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let mut streams = [one.live(&driver, "ride_1").await, two.live(&driver, "ride_1").await];
    let before = database.head("ride_1").await;
    rider.post("messages/rides/ride_1/typing", json!({ "typing": true })).await.expect(202);
    for stream in &mut streams {
        let told = stream.next_signal("typing:indicator").await;
        assert_eq!(told.data, json!({ "rideId": "ride_1", "userId": "rider_1", "typing": true }));
        assert_eq!(told.id, None);
    }
    for stream in &mut streams {
        assert_eq!(stream.next_signal("typing:indicator").await.data["typing"], false, "after 6 s");
    }
    rider.post("messages/rides/ride_1/typing", json!({})).await.wrong_field("/typing");
    rider.post("messages/rides/ride_1/typing", json!({ "typing": "yes" })).await.wrong_field("/typing");
    assert_eq!(database.head("ride_1").await, before, "it is never in the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_follows_a_ride_anywhere_is_online_and_a_grace_after_that_offline() {
    let database = Database::create().await;
    let settings = [("RIDEWIRE_PRESENCE_GRACE", "1s")];
    let (one, two) = (Server::with(&database, &settings).await, Server::with(&database, &settings).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let mut watching = one.live(&rider, "ride_1").await;
    assert_eq!(person(&rider, "driver_1").await["online"], false);
    let etag = rider.get("messages/rides/ride_1").await.expect(200).header("etag").to_owned();

    let (first, second) = (two.live(&driver, "ride_1").await, one.live(&driver, "ride_1").await);
    let online = watching.next_signal("presence:online").await;
    assert_eq!((&online.data["rideId"], &online.data["userId"]), (&json!("ride_1"), &json!("driver_1")));
    assert!(online.data["at"].is_string() && online.id.is_none());
    eventually("the driver is online", async || (person(&rider, "driver_1").await["online"] == true).then_some(()))
        .await;
    assert!(person(&rider, "driver_1").await["since"].is_string());
    // The history shows who is there, so it is another page now.
    let request = rider.request(Method::GET, "messages/rides/ride_1").header("if-none-match", etag);
    rider.ask(request).await.expect(200);

    drop(first);
    drop(second);
    assert_eq!(watching.next_signal("presence:offline").await.data["userId"], "driver_1");
    assert_eq!(person(&rider, "driver_1").await["online"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_location_is_told_and_kept_and_older_ones_are_not() {
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let mut streams = [one.live(&rider, "ride_1").await, two.live(&rider, "ride_1").await];
    let post = async |body: Value| driver.post("rides/ride_1/location", body).await;
    post(json!({ "lat": 52.5, "lng": 13.25, "heading": 90, "at": "2026-01-22T22:45:00Z" })).await.expect(202);
    for stream in &mut streams {
        let told = stream.next_signal("ride:location").await.data;
        let expected = json!({
            "rideId": "ride_1", "driverId": "driver_1", "lat": 52.5, "lng": 13.25, "heading": told["heading"],
            "speed": null, "accuracy": null, "at": "2026-01-22T22:45:00.000Z",
        });
        assert_eq!(told, expected);
        assert_eq!(told["heading"].as_f64(), Some(90.0));
    }
    post(json!({ "lat": 1, "lng": 2, "at": "2026-01-22T22:44:59Z" })).await.expect(202);
    post(json!({ "lat": 3, "lng": 4, "at": "2999-01-01T00:00:00Z" })).await.expect(202);
    for stream in &mut streams {
        let told = stream.next_signal("ride:location").await.data;
        assert_eq!(told["lat"].as_f64(), Some(3.0), "the older one is passed over");
        assert!(told["at"].as_str().unwrap() < "2999", "one from the future is of now");
    }
    let kept = rider.get("rides/ride_1/location").await.expect(200).json();
    assert_eq!(kept["lng"].as_f64(), Some(4.0));
    for server in [&one, &two] {
        let sync = rider.on(server).stream("ride_1", "").await.next_sync().await;
        assert_eq!(sync["state"]["location"], kept);
    }
    rider.post("rides/ride_1/location", json!({ "lat": 1, "lng": 2 })).await.problem(403, "forbidden");
    for (body, pointer) in [
        (json!({ "lat": 90.1, "lng": 0 }), "/lat"),
        (json!({ "lat": 0, "lng": -180.5 }), "/lng"),
        (json!({ "lng": 0 }), "/lat"),
        (json!({ "lat": 0, "lng": 0, "heading": 361 }), "/heading"),
        (json!({ "lat": 0, "lng": 0, "speed": -1 }), "/speed"),
        (json!({ "lat": 0, "lng": 0, "at": "yesterday" }), "/at"),
        (json!({ "lat": 0, "lng": 0, "altitude": 3 }), "/altitude"),
    ] {
        post(body).await.wrong_field(pointer);
    }
}

async fn with_ticket(user: &User, path: &str, ticket: &str) -> reqwest::RequestBuilder {
    let bare = user.clone().with_token("");
    bare.request(Method::GET, &format!("{path}{}ticket={ticket}", if path.contains('?') { '&' } else { '?' }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_opens_streams_and_nothing_else() {
    let database = Database::create().await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    one.open_ride("ride_2").await;
    let ticket = async |body: Value| {
        let made = driver.post("stream-tickets", body).await.expect(201).json();
        assert!(made["expiresAt"].is_string());
        made["ticket"].as_str().unwrap().to_owned()
    };
    let (for_one, for_all) = (ticket(json!({ "rideId": "ride_1" })).await, ticket(json!({})).await);
    for ticket in [&for_one, &for_all] {
        let at_two = driver.on(&two);
        let mut stream =
            Stream::open(with_ticket(&at_two, "messages/rides/ride_1/events", ticket).await).await.expect(200);
        stream.next_sync().await;
        let sent = rider.send("ride_1", "Hello").await;
        assert_eq!(stream.next_of("message:new").await.data, sent);
        let polled = at_two.ask(with_ticket(&at_two, "messages/rides/ride_1/poll?after=0", ticket).await).await;
        polled.expect(200);
        for path in ["messages/rides/ride_1", "rides/ride_1", "rides", "messages/unread-count"] {
            let refused = at_two.ask(with_ticket(&at_two, path, ticket).await).await;
            assert!([401, 403].contains(&refused.status.as_u16()), "{}: {}", refused.asked, refused.status);
            let as_bearer = at_two.clone().with_token(ticket.clone()).get(path).await;
            assert!([401, 403].contains(&as_bearer.status.as_u16()), "{}: {}", as_bearer.asked, as_bearer.status);
        }
    }
    Stream::open(with_ticket(&driver, "messages/rides/ride_2/events", &for_all).await).await.expect(200);
    let refused = driver.ask(with_ticket(&driver, "messages/rides/ride_2/events", &for_one).await).await;
    refused.problem(404, "ride_not_found");
    let nonsense = driver.ask(with_ticket(&driver, "messages/rides/ride_1/events", "nonsense").await).await;
    nonsense.problem(401, "unauthorized");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_ends_with_the_token_it_was_made_with() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (_, driver) = server.open_ride("ride_1").await;
    let brief = driver.for_another(Duration::from_secs(3));
    let made = brief.post("stream-tickets", json!({ "rideId": "ride_1" })).await.expect(201).json();
    let ticket = made["ticket"].as_str().unwrap();
    let mut stream = Stream::open(with_ticket(&brief, "messages/rides/ride_1/events", ticket).await).await.expect(200);
    stream.next_sync().await;
    let kinds: Vec<_> = stream.until_end().await.into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds, ["auth:expired"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_with_a_cursor_has_received_what_lies_before_it() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let mut watching = server.live(&rider, "ride_1").await;
    let (first, second) = (rider.send("ride_1", "one").await, rider.send("ride_1", "two").await);
    driver.poll("ride_1", "after=2&wait=0").await;
    let told = watching.find("message:delivered").await;
    assert_eq!((&told.data["userId"], &told.data["messageId"]), (&json!("driver_1"), &first["id"]));
    driver.stream_from("ride_1", "", Some("3")).await.next_sync().await;
    let told = watching.find("message:delivered").await;
    assert_eq!((&told.data["seq"], &told.data["messageId"]), (&json!(3), &second["id"]));
    let message = rider.get(&format!("messages/{}", second["id"].as_str().unwrap())).await.expect(200).json();
    assert_eq!((&message["isDelivered"], &message["isRead"]), (&json!(true), &json!(false)));
}
