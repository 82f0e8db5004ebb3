//! Rides that are opened again.

use serde_json::{Value, json};

use crate::support::{Database, Event, Server, User, data_types, eventually};

async fn now_plus(database: &Database, seconds: f64) -> String {
    let text = "select to_char((clock_timestamp() + make_interval(secs => $1)) at time zone 'utc',
                               'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')";
    database.client().await.query_one(text, &[&seconds]).await.unwrap().get(0)
}

async fn reopen(user: &User, ride: &str, until: &str) -> crate::support::Answer {
    user.post(&format!("rides/{ride}/reopen"), json!({ "until": until, "reason": "Lost property" })).await
}

async fn until_closed(database: &Database, ride: &str) {
    eventually("the ride is closed", async || {
        let client = database.client().await;
        let row = client.query_one("select closed_at is not null from rides where ride_id = $1", &[&ride]).await;
        row.unwrap().get::<_, bool>(0).then_some(())
    })
    .await;
}

async fn hasty(database: &Database) -> Server {
    Server::with(database, &[("RIDEWIRE_CHAT_GRACE", "0s")]).await
}

/// A ride that is closed: of `rider_1` and `driver_1`, who replaced `driver_0`, with a message to each.
async fn closed_ride(server: &Server, database: &Database, ride: &str) -> (User, User) {
    let service = server.service();
    service.put_ride(ride, "rider_1", Some("driver_0")).await.expect(201);
    let (rider, driver) = (server.rider("rider_1"), server.driver("driver_1"));
    rider.send(ride, "for the first").await;
    service.put_ride(ride, "rider_1", Some("driver_1")).await.expect(200);
    rider.send(ride, "for the second").await;
    service.post_nothing(&format!("rides/{ride}/cancel")).await.expect(200);
    until_closed(database, ride).await;
    (rider, driver)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_ride_is_opened_again_until_a_time() {
    let database = Database::create().await;
    let (one, two) = (hasty(&database).await, hasty(&database).await);
    let (rider, driver) = closed_ride(&one, &database, "ride_1").await;
    let replaced = one.driver("driver_0");
    let mut of_replaced = replaced.stream_all("types=ride:*", None).await.expect(200);
    of_replaced.next_sync().await;
    let head = database.head("ride_1").await;
    assert_eq!(driver.stream("ride_1", &format!("after={head}")).await.status, 204);

    let until = now_plus(&database, 3_600.0).await;
    let ride = reopen(&two.support(), "ride_1", &until).await.expect(200).json();
    assert_eq!((&ride["chat"], &ride["status"]), (&json!("open"), &json!("cancelled")));
    for server in [&one, &two] {
        let (rider, driver) = (rider.on(server), driver.on(server));
        for user in [&rider, &driver, &server.support(), &server.service()] {
            assert_eq!(user.get("rides/ride_1").await.expect(200).json()["chat"], "open");
        }
        let mut stream = driver.stream("ride_1", &format!("after={head}")).await.expect(200);
        assert_eq!(stream.next_sync().await["resumed"], true);
        let opened = stream.next_of("ride:reopened").await;
        let expected = json!({ "ride": ride, "by": "support_1", "until": until, "reason": "Lost property" });
        assert_eq!((opened.seq(), &opened.data), (head + 1, &expected));
        let polled = rider.poll("ride_1", &format!("after={head}&wait=0&types=ride:*")).await;
        assert_eq!((data_types(&polled["events"]), &polled["closed"]), (vec!["ride:reopened"], &Value::Null));
        let said = rider.send("ride_1", "I left my umbrella").await;
        while stream.find("message:new").await.data["id"] != said["id"] {}
        driver.post("messages/rides/ride_1/typing", json!({ "typing": true })).await.expect(202);
        replaced.on(server).get("rides/ride_1").await.problem(404, "ride_not_found");
    }
    // The same again changes nothing.
    let head = database.head("ride_1").await;
    assert_eq!(reopen(&one.service(), "ride_1", &until).await.expect(200).json()["chat"], "open");
    assert_eq!(database.head("ride_1").await, head);
    // Who was replaced before the end is told nothing of it.
    one.service().broadcast(&["driver_0"], json!({})).await.expect(202);
    assert!(of_replaced.next_event().await.kind != "ride:reopened");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_and_what_cannot_be_opened_again_is_refused() {
    let database = Database::create().await;
    let server = hasty(&database).await;
    let (rider, driver) = closed_ride(&server, &database, "ride_1").await;
    server.open_ride("going_on").await;
    let (service, before) = (server.service(), database.contents().await);
    let until = now_plus(&database, 3_600.0).await;
    for user in [&rider, &driver, &server.rider("stranger")] {
        reopen(user, "ride_1", &until).await.problem(403, "forbidden");
    }
    reopen(&service, "ride_none", &until).await.problem(404, "ride_not_found");
    reopen(&service, "going_on", &until).await.problem(409, "ride_conflict");
    for until in
        ["", "soon", "2026-01-01", &now_plus(&database, -1.0).await, &now_plus(&database, 30.0 * 86_400.0 + 60.0).await]
    {
        reopen(&service, "ride_1", until).await.wrong_field("/until");
    }
    let post = async |body: Value| service.post("rides/ride_1/reopen", body).await;
    post(json!({})).await.wrong_field("/until");
    post(json!({ "until": null })).await.wrong_field("/until");
    post(json!({ "until": until, "reason": "x".repeat(501) })).await.wrong_field("/reason");
    post(json!({ "until": until, "other": 1 })).await.wrong_field("/other");
    assert_eq!(database.contents().await, before);
    let latest = now_plus(&database, 30.0 * 86_400.0 - 60.0).await;
    let ride = post(json!({ "until": latest })).await.expect(200).json();
    assert_eq!(ride["chat"], "open");
    let told = service.poll("ride_1", &format!("after={}&wait=0", database.head("ride_1").await - 1)).await;
    assert_eq!(told["events"][0]["data"].get("reason"), None);
}

/// What a reader of everything is handed of a ride: kinds, and on the ride's log seqs without a hole.
fn kinds<'a>(events: impl IntoIterator<Item = &'a Event>) -> Vec<&'a str> {
    events.into_iter().map(|event| event.kind.as_str()).collect()
}

const TYPES: &str = "types=message:new,message:deleted,ride:*,notice";

async fn until_notice(stream: &mut crate::support::Stream) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        let event = stream.next_event().await;
        if event.kind == "notice" {
            return events;
        }
        events.push(event);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn merged_streams_follow_it_again_and_what_happened_while_it_was_closed_is_not_missing() {
    let database = Database::create().await;
    let (one, two) = (hasty(&database).await, hasty(&database).await);
    let service = one.service();
    let (rider, driver) = one.open_ride("ride_1").await;
    let mut live = driver.on(&two).stream_all(TYPES, None).await.expect(200);
    live.next_sync().await;
    let cursor = live.last_id.clone();
    let said = rider.send("ride_1", "Hello").await;
    rider.post_nothing("rides/ride_1/cancel").await.expect(200);
    until_closed(&database, "ride_1").await;
    let closed = {
        let mut seen = Vec::new();
        loop {
            seen.push(live.next_event().await);
            if seen.last().unwrap().kind == "ride:closed" {
                break seen;
            }
        }
    };
    assert_eq!(kinds(&closed), ["message:new", "ride:cancel", "ride:closed"]);
    // Its sender takes a message back while the ride is closed.
    rider.erase(&said).await.expect(204);
    let until = now_plus(&database, 3_600.0).await;
    reopen(&service, "ride_1", &until).await.expect(200);
    driver.send("ride_1", "Found it").await;
    service.broadcast(&["driver_1"], json!({ "end": 1 })).await.expect(202);
    let mut again = Vec::new();
    while again.iter().filter(|event: &&Event| event.kind != "notice").count() < 4 {
        again.push(live.next_event().await);
    }
    again.retain(|event| event.kind != "notice");
    let of_ride: Vec<_> = again.iter().filter(|event| event.data.get("fromSeq").is_none()).collect();
    assert_eq!(kinds(of_ride.iter().copied()), ["message:deleted", "ride:reopened", "message:new"], "{again:?}");
    let own: Vec<_> = again.iter().filter(|event| event.data.get("fromSeq").is_some()).collect();
    assert_eq!(kinds(own.iter().copied()), ["ride:reopened"]);
    assert_eq!(own[0].data["until"], until);

    // Who was away: before it closed, while it was closed.
    for (cursor, expected) in [(&cursor, 7), (&closed[2].id.clone().unwrap(), 4)] {
        for server in [&one, &two] {
            let mut stream = driver.on(server).stream_all(TYPES, Some(cursor)).await.expect(200);
            assert_eq!(stream.next_sync().await["resumed"], true);
            service.broadcast(&["driver_1"], json!({ "end": 2 })).await.expect(202);
            let mut events = Vec::new();
            while events.len() < expected {
                events.push(stream.next_event().await);
                events.retain(|event: &Event| event.kind != "notice");
            }
            service.broadcast(&["driver_1"], json!({ "end": 3 })).await.expect(202);
            let rest = until_notice(&mut stream).await;
            assert_eq!(rest.len(), 0, "each comes once: {events:?} {rest:?}");
        }
        let mut after = cursor.clone();
        let mut polled = Vec::new();
        loop {
            let page = driver.poll_all(&format!("after={after}&wait=0&{TYPES}")).await;
            polled.extend(page["events"].as_array().unwrap().clone());
            after = page["cursor"].as_str().unwrap().to_owned();
            if page["hasMore"] == false {
                break;
            }
        }
        polled.retain(|event| event["type"] != "notice");
        assert_eq!(polled.len(), expected, "{polled:?}");
    }
    // And it ends again.
    let soon = now_plus(&database, 1.0).await;
    reopen(&service, "ride_1", &soon).await.expect(200);
    let closed = live.find("ride:closed").await;
    assert_eq!(closed.data["lastSeq"], database.head("ride_1").await);
    assert_eq!(driver.get("rides/ride_1").await.expect(200).json()["chat"], "readOnly");
    driver.send_named("ride_1", "Too late", "m-1").await.problem(409, "chat_closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_stream_goes_on_where_a_ride_in_its_grace_is_reopened_for_longer_or_shorter() {
    let database = Database::create().await;
    let server = Server::with(&database, &[("RIDEWIRE_CHAT_GRACE", "1h")]).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let mut stream = server.live(&driver, "ride_1").await;
    rider.post_nothing("rides/ride_1/cancel").await.expect(200);
    stream.next_of("ride:cancel").await;
    reopen(&server.support(), "ride_1", &now_plus(&database, 86_400.0).await).await.expect(200);
    stream.next_of("ride:reopened").await;
    rider.send("ride_1", "Hello").await;
    stream.next_of("message:new").await;
    reopen(&server.support(), "ride_1", &now_plus(&database, 0.5).await).await.expect(200);
    let rest = stream.until_end().await;
    assert_eq!(kinds(&rest), ["ride:reopened", "stream:closing"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_log_begins_with_the_reopening_and_retention_counts_from_its_end() {
    let database = Database::create().await;
    let settings = [
        ("RIDEWIRE_CHAT_GRACE", "0s"),
        ("RIDEWIRE_LOG_RETENTION", "1s"),
        ("RIDEWIRE_MESSAGE_RETENTION", "365d"),
        ("RIDEWIRE_RETENTION_PERIOD", "100ms"),
    ];
    let server = Server::with(&database, &settings).await;
    let (_, driver) = closed_ride(&server, &database, "ride_1").await;
    let client = database.client().await;
    let events = async || -> i64 {
        let count = "select count(*) from events where topic = 'ride/ride_1'";
        client.query_one(count, &[]).await.unwrap().get(0)
    };
    let is_trimmed = async |ride: &str| -> bool {
        let trimmed = "select log_is_trimmed from rides where ride_id = $1";
        client.query_one(trimmed, &[&ride]).await.unwrap().get(0)
    };
    eventually("the log goes", async || (events().await == 0 && is_trimmed("ride_1").await).then_some(())).await;
    let head = database.head("ride_1").await;
    // Long enough for the machine to look before it ends; the end is what is waited for below.
    let until = now_plus(&database, 3_600.0).await;
    reopen(&server.service(), "ride_1", &until).await.expect(200);
    let mut stream = driver.stream("ride_1", "after=0").await.expect(200);
    let sync = stream.next_sync().await;
    let from = sync["gap"]["from"].as_i64().unwrap();
    assert_eq!((from, &sync["gap"]["to"], &sync["resumed"]), (3, &json!(head), &json!(false)), "{sync}");
    assert_eq!(stream.next_of("ride:reopened").await.seq(), head + 1);
    let polled = server.service().poll("ride_1", "after=0&wait=0").await;
    assert_eq!(polled["gap"], json!({ "from": 1, "to": head }));
    let polled = server.service().poll("ride_1", &format!("after={head}&wait=0")).await;
    assert_eq!(data_types(&polled["events"]), ["ride:reopened"]);
    assert_eq!(driver.history("ride_1", "").await["messages"].as_array().unwrap().len(), 1);
    // It is not taken while the ride is open, nor before the retention after its new end.
    closed_ride(&server, &database, "ride_2").await;
    eventually("another log goes", async || is_trimmed("ride_2").await.then_some(())).await;
    assert_eq!((events().await, is_trimmed("ride_1").await), (1, false));
    driver.send("ride_1", "Found it").await;
    reopen(&server.service(), "ride_1", &now_plus(&database, 0.5).await).await.expect(200);
    until_closed(&database, "ride_1").await;
    eventually("the log goes again", async || (events().await == 0 && is_trimmed("ride_1").await).then_some(())).await;
    let kept = "select closed_at >= ended_at and clock_timestamp() >= ended_at + interval '1s' from rides where ride_id = 'ride_1'";
    assert!(client.query_one(kept, &[]).await.unwrap().get::<_, bool>(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ride_that_nobody_had_accepted_opens_too() {
    let database = Database::create().await;
    let server = hasty(&database).await;
    server.service().put_ride("ride_1", "rider_1", None).await.expect(201);
    let rider = server.rider("rider_1");
    assert_eq!(rider.post_nothing("rides/ride_1/cancel").await.expect(200).json()["chat"], "none");
    until_closed(&database, "ride_1").await;
    reopen(&server.support(), "ride_1", &now_plus(&database, 600.0).await).await.expect(200);
    rider.send("ride_1", "Why was it cancelled?").await;
}
