//! Reopening of closed rides.

use serde_json::{Value, json};

use crate::support::{Database, Event, Server, User, data_types, eventually};

async fn time_after(database: &Database, seconds: f64) -> String {
    let text = "select to_char((clock_timestamp() + make_interval(secs => $1)) at time zone 'utc',
                               'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')";
    database.client().await.query_one(text, &[&seconds]).await.unwrap().get(0)
}

async fn reopen(user: &User, ride: &str, until: &str) -> crate::support::Response {
    user.post(&format!("rides/{ride}/reopen"), json!({ "until": until, "reason": "Lost property" })).await
}

async fn server_with_short_grace(database: &Database) -> Server {
    Server::start_with(database, &[("RIDEWIRE_CHAT_GRACE", "0s")]).await
}

/// Creates a closed ride of `rider_1` and `driver_1`, who replaced `driver_0`. Each driver got a message.
async fn closed_ride(server: &Server, database: &Database, ride: &str) -> (User, User) {
    let service = server.service();
    service.put_ride(ride, "rider_1", Some("driver_0")).await.expect(201);
    let (rider, driver) = (server.rider("rider_1"), server.driver("driver_1"));
    rider.send(ride, "for the first").await;
    service.put_ride(ride, "rider_1", Some("driver_1")).await.expect(200);
    rider.send(ride, "for the second").await;
    service.post_empty(&format!("rides/{ride}/cancel")).await.expect(200);
    database.until_closed(ride).await;
    (rider, driver)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_ride_is_reopened_until_a_given_time() {
    let database = Database::create().await;
    let (one, two) = (server_with_short_grace(&database).await, server_with_short_grace(&database).await);
    let (rider, driver) = closed_ride(&one, &database, "ride_1").await;
    let replaced = one.driver("driver_0");
    let mut replaced_stream = replaced.stream_all("types=ride:*", None).await.expect(200);
    replaced_stream.next_sync().await;
    let head = database.head("ride_1").await;
    assert_eq!(driver.stream("ride_1", &format!("after={head}")).await.status, 204);

    let until = time_after(&database, 3_600.0).await;
    let ride = reopen(&two.support(), "ride_1", &until).await.expect(200).json();
    assert_eq!((&ride["chat"], &ride["status"]), (&json!("open"), &json!("cancelled")));
    for server in [&one, &two] {
        let (rider, driver) = (rider.on(server), driver.on(server));
        for user in [&rider, &driver, &server.support(), &server.service()] {
            assert_eq!(user.get("rides/ride_1").await.expect(200).json()["chat"], "open");
        }
        let mut stream = driver.stream("ride_1", &format!("after={head}")).await.expect(200);
        assert_eq!(stream.next_sync().await["resumed"], true);
        let opened = stream.next_of_type("ride:reopened").await;
        let expected = json!({ "ride": ride, "by": "support_1", "until": until, "reason": "Lost property" });
        assert_eq!((opened.seq(), &opened.data), (head + 1, &expected));
        let polled = rider.poll("ride_1", &format!("after={head}&wait=0&types=ride:*")).await;
        assert_eq!((data_types(&polled["events"]), &polled["closed"]), (vec!["ride:reopened"], &Value::Null));
        let sent_message = rider.send("ride_1", "I left my umbrella").await;
        while stream.find("message:new").await.data["id"] != sent_message["id"] {}
        driver.post("messages/rides/ride_1/typing", json!({ "typing": true })).await.expect(202);
        replaced.on(server).get("rides/ride_1").await.problem(404, "ride_not_found");
    }
    // A repetition changes nothing.
    let head = database.head("ride_1").await;
    assert_eq!(reopen(&one.service(), "ride_1", &until).await.expect(200).json()["chat"], "open");
    assert_eq!(database.head("ride_1").await, head);
    // The replaced driver gets no event.
    one.service().broadcast(&["driver_0"], json!({})).await.expect(202);
    assert!(replaced_stream.next_event().await.kind != "ride:reopened");
}

/// Closed rides that a user has read are not looked at by `/messages/unread-count`. They are again after a reopening.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_counts_stay_correct_when_rides_close_and_reopen() {
    let database = Database::create().await;
    let (one, two) = (server_with_short_grace(&database).await, server_with_short_grace(&database).await);
    let (rider, driver) = one.open_ride("ride_1").await;
    let total =
        async |user: &User| user.on(&two).get("messages/unread-count").await.expect(200).json()["total"].clone();
    let client = database.client().await;
    // The participants for whom the ride is left out.
    let read = async || {
        let query = "select user_id from participants where is_over and is_read order by user_id";
        client.query(query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect::<Vec<String>>()
    };
    let question = rider.send("ride_1", "Where are you?").await;
    driver.mark(&question, "read").await.expect(200);
    let answer = driver.send("ride_1", "Here.").await;
    one.service().post_empty("rides/ride_1/cancel").await.expect(200);
    database.until_closed("ride_1").await;
    assert_eq!((total(&rider).await, total(&driver).await), (json!(1), json!(0)));
    assert_eq!(read().await, ["driver_1"]);
    rider.mark(&answer, "read").await.expect(200);
    assert_eq!(total(&rider).await, 0);
    assert_eq!(read().await, ["driver_1", "rider_1"]);

    reopen(&two.support(), "ride_1", &time_after(&database, 3_600.0).await).await.expect(200);
    assert_eq!(read().await, [""; 0]);
    let more = rider.send("ride_1", "I left my umbrella").await;
    assert_eq!((total(&rider).await, total(&driver).await), (json!(0), json!(1)));
    // A replica of an earlier version does not reset the column when it reopens a ride.
    client.batch_execute("update participants set is_read = true").await.unwrap();
    assert_eq!(total(&driver).await, 1);
    client.batch_execute("update participants set is_read = false").await.unwrap();
    // A deleted message is not unread.
    rider.delete_message(&more).await.expect(204);
    let last = driver.send("ride_1", "I have it.").await;
    rider.mark(&last, "read").await.expect(200);
    client
        .batch_execute("update rides set ended_at = now(), rider_closes_at = now(), driver_closes_at = now()")
        .await
        .unwrap();
    database.until_closed("ride_1").await;
    assert_eq!((total(&rider).await, total(&driver).await), (json!(0), json!(0)));
    assert_eq!(read().await, ["driver_1", "rider_1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reopening_is_rejected_for_other_roles_and_for_rides_that_have_not_ended() {
    let database = Database::create().await;
    let server = server_with_short_grace(&database).await;
    let (rider, driver) = closed_ride(&server, &database, "ride_1").await;
    server.open_ride("going_on").await;
    let (service, before) = (server.service(), database.contents().await);
    let until = time_after(&database, 3_600.0).await;
    for user in [&rider, &driver, &server.rider("stranger")] {
        reopen(user, "ride_1", &until).await.problem(403, "forbidden");
    }
    reopen(&service, "ride_none", &until).await.problem(404, "ride_not_found");
    reopen(&service, "going_on", &until).await.problem(409, "ride_conflict");
    for until in [
        "",
        "soon",
        "2026-01-01",
        &time_after(&database, -1.0).await,
        &time_after(&database, 30.0 * 86_400.0 + 60.0).await,
    ] {
        reopen(&service, "ride_1", until).await.invalid_field("/until");
    }
    let post = async |body: Value| service.post("rides/ride_1/reopen", body).await;
    post(json!({})).await.invalid_field("/until");
    post(json!({ "until": null })).await.invalid_field("/until");
    post(json!({ "until": until, "reason": "x".repeat(501) })).await.invalid_field("/reason");
    post(json!({ "until": until, "other": 1 })).await.invalid_field("/other");
    assert_eq!(database.contents().await, before);
    let latest = time_after(&database, 30.0 * 86_400.0 - 60.0).await;
    let ride = post(json!({ "until": latest })).await.expect(200).json();
    assert_eq!(ride["chat"], "open");
    let polled = service.poll("ride_1", &format!("after={}&wait=0", database.head("ride_1").await - 1)).await;
    assert_eq!(polled["events"][0]["data"].get("reason"), None);
}

/// Reads a merged stream up to a notice: the types of a ride's events, whose seqs must have no holes.
fn kinds<'a>(events: impl IntoIterator<Item = &'a Event>) -> Vec<&'a str> {
    events.into_iter().map(|event| event.kind.as_str()).collect()
}

const TYPES: &str = "types=message:new,message:deleted,ride:*,notice";

async fn read_until_notice(stream: &mut crate::support::Stream) -> Vec<Event> {
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
async fn merged_streams_resume_the_ride_and_miss_no_event_of_the_closed_time() {
    let database = Database::create().await;
    let (one, two) = (server_with_short_grace(&database).await, server_with_short_grace(&database).await);
    let service = one.service();
    let (rider, driver) = one.open_ride("ride_1").await;
    let mut live = driver.on(&two).stream_all(TYPES, None).await.expect(200);
    live.next_sync().await;
    let cursor = live.last_id.clone();
    let sent_message = rider.send("ride_1", "Hello").await;
    rider.post_empty("rides/ride_1/cancel").await.expect(200);
    database.until_closed("ride_1").await;
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
    // The sender deletes a message while the ride is closed.
    rider.delete_message(&sent_message).await.expect(204);
    let until = time_after(&database, 3_600.0).await;
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

    // Readers that disconnected before the ride closed, and while it was closed.
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
            let rest = read_until_notice(&mut stream).await;
            assert_eq!(rest.len(), 0, "each event arrives once: {events:?} {rest:?}");
        }
        let mut polled = driver.poll_pages(cursor, TYPES).await;
        polled.retain(|event| event["type"] != "notice");
        assert_eq!(polled.len(), expected, "{polled:?}");
    }
    // The ride closes again.
    let soon = time_after(&database, 1.0).await;
    reopen(&service, "ride_1", &soon).await.expect(200);
    let closed = live.find("ride:closed").await;
    assert_eq!(closed.data["lastSeq"], database.head("ride_1").await);
    assert_eq!(driver.get("rides/ride_1").await.expect(200).json()["chat"], "readOnly");
    driver.send_with_id("ride_1", "Too late", "m-1").await.problem(409, "chat_closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_stream_continues_when_a_ride_in_its_grace_period_is_reopened() {
    let database = Database::create().await;
    let server = Server::start_with(&database, &[("RIDEWIRE_CHAT_GRACE", "1h")]).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let mut stream = server.live_stream(&driver, "ride_1").await;
    rider.post_empty("rides/ride_1/cancel").await.expect(200);
    stream.next_of_type("ride:cancel").await;
    reopen(&server.support(), "ride_1", &time_after(&database, 86_400.0).await).await.expect(200);
    stream.next_of_type("ride:reopened").await;
    rider.send("ride_1", "Hello").await;
    stream.next_of_type("message:new").await;
    reopen(&server.support(), "ride_1", &time_after(&database, 0.5).await).await.expect(200);
    let rest = stream.until_end().await;
    assert_eq!(kinds(&rest), ["ride:reopened", "stream:closing"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_log_restarts_with_the_reopening_and_retention_counts_from_its_end() {
    let database = Database::create().await;
    let settings = [
        ("RIDEWIRE_CHAT_GRACE", "0s"),
        ("RIDEWIRE_LOG_RETENTION", "1s"),
        ("RIDEWIRE_MESSAGE_RETENTION", "365d"),
        ("RIDEWIRE_RETENTION_PERIOD", "100ms"),
    ];
    let server = Server::start_with(&database, &settings).await;
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
    eventually("the log expires", async || (events().await == 0 && is_trimmed("ride_1").await).then_some(())).await;
    let head = database.head("ride_1").await;
    // Long enough for retention to run before that. The test waits for the end below.
    let until = time_after(&database, 3_600.0).await;
    reopen(&server.service(), "ride_1", &until).await.expect(200);
    let mut stream = driver.stream("ride_1", "after=0").await.expect(200);
    let sync = stream.next_sync().await;
    let from = sync["gap"]["from"].as_i64().unwrap();
    assert_eq!((from, &sync["gap"]["to"], &sync["resumed"]), (3, &json!(head), &json!(false)), "{sync}");
    assert_eq!(stream.next_of_type("ride:reopened").await.seq(), head + 1);
    let polled = server.service().poll("ride_1", "after=0&wait=0").await;
    assert_eq!(polled["gap"], json!({ "from": 1, "to": head }));
    let polled = server.service().poll("ride_1", &format!("after={head}&wait=0")).await;
    assert_eq!(data_types(&polled["events"]), ["ride:reopened"]);
    assert_eq!(driver.history("ride_1", "").await["messages"].as_array().unwrap().len(), 1);
    // Retention neither deletes the log of the open ride nor one before the retention time after the new end.
    closed_ride(&server, &database, "ride_2").await;
    eventually("another log expires", async || is_trimmed("ride_2").await.then_some(())).await;
    assert_eq!((events().await, is_trimmed("ride_1").await), (1, false));
    driver.send("ride_1", "Found it").await;
    reopen(&server.service(), "ride_1", &time_after(&database, 0.5).await).await.expect(200);
    database.until_closed("ride_1").await;
    eventually("the log expires again", async || (events().await == 0 && is_trimmed("ride_1").await).then_some(()))
        .await;
    let kept = "select closed_at >= ended_at and clock_timestamp() >= ended_at + interval '1s' from rides where ride_id = 'ride_1'";
    assert!(client.query_one(kept, &[]).await.unwrap().get::<_, bool>(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ride_that_was_never_accepted_can_be_reopened() {
    let database = Database::create().await;
    let server = server_with_short_grace(&database).await;
    server.service().put_ride("ride_1", "rider_1", None).await.expect(201);
    let rider = server.rider("rider_1");
    assert_eq!(rider.post_empty("rides/ride_1/cancel").await.expect(200).json()["chat"], "none");
    database.until_closed("ride_1").await;
    reopen(&server.support(), "ride_1", &time_after(&database, 600.0).await).await.expect(200);
    rider.send("ride_1", "Why was it cancelled?").await;
}
