//! Flagged messages: they are stored, appear once on the feed, and only staff see the labels.

use serde_json::{Value, json};

use super::hook::{Hook, Reply, allow};
use super::{dump, verdict};
use crate::support::{Database, Server, User, eventually};

/// Returns all events of the feed.
async fn pages(service: &User) -> Vec<Value> {
    let (mut events, mut cursor) = (Vec::new(), "0".to_owned());
    loop {
        let page = service.get(&format!("feed/poll?after={cursor}&wait=0")).await.expect(200).json();
        events.extend(page["events"].as_array().unwrap().iter().cloned());
        let next = page["cursor"].as_str().unwrap().to_owned();
        if next == cursor {
            return events;
        }
        cursor = next;
    }
}

/// Waits until the feed has at least `count` flags, and returns its events.
async fn feed(service: &User, count: usize) -> Vec<Value> {
    eventually("the feed has the flags", async || {
        let events = pages(service).await;
        (flags(&events).len() >= count).then_some(events)
    })
    .await
}

fn flags(events: &[Value]) -> Vec<&Value> {
    events.iter().filter(|event| event["type"] == "message:flagged").map(|event| &event["data"]).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flagged_message_is_on_the_feed_once_after_the_event_that_stored_it() {
    let database = Database::create().await;
    let hook = Hook::start(verdict).await;
    let server = Server::start_with(&database, &hook.settings()).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let service = server.service();
    let flagged = rider.send_with_id("ride_1", "an odd thing", "name_1").await.expect(201).json();
    rider.send_with_id("ride_1", "an odd thing", "name_1").await.expect(200);
    let other = rider.send("ride_1", "Hello").await;
    rider.edit(&other, "an odd edit").await.expect(200);
    rider.send("ride_1", "Bye").await;

    let events = feed(&service, 2).await;
    let positions: Vec<_> =
        events.iter().map(|event| (event["type"].as_str().unwrap(), &event["data"]["seq"])).collect();
    let (first, second) = (&flagged["seq"], &other["seq"]);
    let at = |wanted: (&str, &Value)| positions.iter().position(|found| *found == wanted).unwrap();
    assert!(at(("message:flagged", first)) > at(("message:new", first)), "{positions:?}");
    assert!(at(("message:flagged", second)) > at(("message:edited", &json!(4))), "{positions:?}");
    let found = flags(&events);
    assert_eq!(found.len(), 2);
    for (flag, message) in found.iter().zip([&flagged, &other]) {
        assert_eq!((&flag["topic"], &flag["seq"]), (&json!("ride/ride_1"), &message["seq"]));
        let at = &flag["data"]["at"];
        assert_eq!(
            flag["data"],
            json!({ "rideId": "ride_1", "messageId": message["id"], "seq": message["seq"], "labels": ["odd_word", "spam"], "at": at })
        );
        assert_eq!(*at, flag["at"]);
    }
    assert_eq!(found[0]["at"], flagged["createdAt"]);
    let page = service.get("feed/poll?after=0&wait=0&types=message:flagged").await.expect(200).json();
    assert_eq!(flags(page["events"].as_array().unwrap()), found);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_support_and_service_see_labels() {
    let database = Database::create().await;
    let hook = Hook::start(verdict).await;
    let server = Server::start_with(&database, &hook.settings()).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let (support, service) = (server.support(), server.service());
    let labels = json!(["odd_word", "spam"]);
    let mut streams = Vec::new();
    for user in [&rider, &driver, &support, &service] {
        streams.push(server.live_stream(user, "ride_1").await);
    }
    let sent = rider.send_with_id("ride_1", "an odd thing", "name_1").await.expect(201).json();
    let edited = rider.edit(&sent, "another odd thing").await.expect(200).json();
    let again = rider.send_with_id("ride_1", "an odd thing", "name_1").await.expect(200).json();
    assert_eq!([&sent["labels"], &edited["labels"], &again["labels"]], [&Value::Null; 3]);
    for stream in &mut streams {
        for kind in ["message:new", "message:edited"] {
            assert_eq!(stream.find(kind).await.data["labels"], Value::Null, "events are the same for all readers");
        }
    }
    let path = format!("messages/{}", sent["id"].as_str().unwrap());
    let mut etags = Vec::new();
    for (user, expected) in [(&rider, &Value::Null), (&driver, &Value::Null), (&support, &labels), (&service, &labels)]
    {
        assert_eq!(user.get(&path).await.expect(200).json()["labels"], *expected, "{}", user.name);
        let history = user.get("messages/rides/ride_1").await.expect(200);
        assert_eq!(history.json()["messages"][0]["labels"], *expected, "{}", user.name);
        let etag = history.header("etag").to_owned();
        assert!(!etags.contains(&etag), "each caller's page has its own ETag");
        etags.push(etag);
    }
    for user in [&rider, &driver] {
        let rides = user.get("rides").await.expect(200).json();
        assert_eq!(rides["rides"][0]["lastMessage"]["labels"], Value::Null, "{rides}");
        let page = user.poll("ride_1", "after=0&wait=0").await;
        assert!(!page.to_string().contains("odd_word"), "{page}");
    }
    service.put_ride("ride_2", "rider_1", Some("support_1")).await.expect(201);
    rider.send("ride_2", "odd again").await;
    let rides = support.get("rides").await.expect(200).json();
    let listed = rides["rides"].as_array().unwrap().iter().find(|ride| ride["rideId"] == "ride_2").unwrap();
    assert_eq!(listed["lastMessage"]["labels"], labels, "{rides}");
    // Staff get the labels of their own messages.
    let own = support.send("ride_1", "odd support").await;
    assert_eq!(own["labels"], labels);
    // An edit of the flagged content removes the labels, which changes the ETag.
    hook.set_rule(|_| allow());
    rider.edit(&sent, "nothing special").await.expect(200);
    let history = service.get("messages/rides/ride_1").await.expect(200);
    assert_eq!(history.json()["messages"][0]["labels"], Value::Null);
    assert!(!etags.contains(&history.header("etag").to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_erases_the_labels_everywhere() {
    let database = Database::create().await;
    let hook = Hook::start(|_| Reply::Json(json!({ "action": "flag", "labels": ["secret_label"] }))).await;
    let server = Server::start_with(&database, &hook.settings()).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let (support, service) = (server.support(), server.service());
    let sent = rider.send("ride_1", "one").await;
    rider.edit(&sent, "two").await.expect(200);
    let second = driver.send("ride_1", "three").await;
    assert_eq!(flags(&feed(&service, 3).await).len(), 3);
    assert!(dump(&database).await.contains("secret_label"), "the labels are stored");
    rider.delete_message(&sent).await.expect(204);
    service.delete("users/driver_1").await.expect(200);
    let stored = dump(&database).await;
    assert!(!stored.contains("secret_label"), "labels are still stored");
    let events = eventually("the labels are erased from the feed", async || {
        let events = feed(&service, 3).await;
        (!Value::Array(events.clone()).to_string().contains("secret_label")).then_some(events)
    })
    .await;
    for flag in flags(&events) {
        assert_eq!(flag["data"]["labels"], Value::Null, "{flag}");
    }
    let path = format!("messages/{}", second["id"].as_str().unwrap());
    assert_eq!(support.get(&path).await.expect(200).json()["labels"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_message_of_a_partly_retried_batch_is_flagged_once() {
    let database = Database::create().await;
    let hook = Hook::start(verdict).await;
    // The replica gets no notifications, so its cached rides are partly stale.
    let without_notify = [("RIDEWIRE_NOTIFY", "off"), ("RIDEWIRE_FALLBACK_POLL", "10m")];
    let one = Server::start_with(&database, &[&hook.settings()[..], &without_notify].concat()).await;
    let other = Server::start_with(&database, &hook.settings()).await;
    let rides: Vec<_> = (0..6).map(|n| format!("ride_{n}")).collect();
    for ride in &rides {
        one.open_ride(ride).await;
    }
    let (here, there) = (one.rider("rider_1"), other.rider("rider_1"));
    let mut sent = Vec::new();
    for round in 0..6 {
        for ride in rides.iter().skip(round % 2).step_by(2) {
            sent.push(there.send(ride, &format!("odd {round}")).await);
        }
        let sends = (0..24).map(|n| {
            let content = if n % 4 == 0 { format!("even {n}") } else { format!("odd {n}") };
            let (here, ride) = (&here, &rides[n % rides.len()]);
            async move { here.send(ride, &content).await }
        });
        sent.extend(futures_util::future::join_all(sends).await);
    }
    let odd = |message: &&Value| message["content"].as_str().unwrap().starts_with("odd");
    let mut expected: Vec<_> = sent.iter().filter(odd).map(|message| message["id"].to_string()).collect();
    let events = feed(&other.service(), expected.len()).await;
    let mut flagged: Vec<_> = flags(&events).iter().map(|flag| flag["data"]["messageId"].to_string()).collect();
    expected.sort();
    flagged.sort();
    assert_eq!(flagged, expected, "each message once");
    let new = events.iter().filter(|event| event["type"] == "message:new").count();
    assert_eq!(new, sent.len());
    for table in ["flags", "messages where labels is not null"] {
        let rows = database.client().await.query(&format!("select from {table}"), &[]).await.unwrap();
        assert_eq!(rows.len(), expected.len(), "{table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_feed_only_the_labels_are_stored() {
    let database = Database::create().await;
    let hook = Hook::start(verdict).await;
    let settings = [&hook.settings()[..], &[("RIDEWIRE_FEED", "off")]].concat();
    let server = Server::start_with(&database, &settings).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let sent = rider.send("ride_1", "an odd thing").await;
    let path = format!("messages/{}", sent["id"].as_str().unwrap());
    assert_eq!(server.support().get(&path).await.expect(200).json()["labels"], json!(["odd_word", "spam"]));
    for table in ["flags", "feed_batches"] {
        let rows = database.client().await.query(&format!("select from {table}"), &[]).await.unwrap();
        assert!(rows.is_empty(), "{table}");
    }
}
