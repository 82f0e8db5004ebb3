//! Who may, and from where to where in a ride's log.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Database, Server, Stream, User, data_types};

/// Every request about a ride.
fn requests_of_ride(ride: &str) -> Vec<(Method, String, Option<Value>)> {
    vec![
        (Method::POST, "messages".into(), Some(json!({ "rideId": ride, "content": "Hello" }))),
        (Method::GET, format!("messages/rides/{ride}"), None),
        (Method::GET, format!("messages/rides/{ride}?before=5"), None),
        (Method::GET, format!("messages/rides/{ride}/unread-count"), None),
        (Method::GET, format!("messages/rides/{ride}/presence"), None),
        (Method::POST, format!("messages/rides/{ride}/typing"), Some(json!({ "typing": true }))),
        (Method::POST, "stream-tickets".into(), Some(json!({ "rideId": ride }))),
        (Method::POST, format!("rides/{ride}/location"), Some(json!({ "lat": 1.5, "lng": 2.5 }))),
        (Method::GET, format!("rides/{ride}/location"), None),
        (Method::GET, format!("messages/rides/{ride}/events"), None),
        (Method::GET, format!("messages/rides/{ride}/events?after=0"), None),
        (Method::GET, format!("messages/rides/{ride}/poll"), None),
        (Method::GET, format!("messages/rides/{ride}/poll?after=0&wait=0"), None),
        (Method::GET, format!("rides/{ride}"), None),
        (Method::POST, format!("rides/{ride}/cancel"), None),
        (Method::POST, format!("rides/{ride}/status"), Some(json!({ "status": "arrived" }))),
    ]
}

async fn ask(user: &User, (method, path, body): (Method, String, Option<Value>)) -> crate::support::Answer {
    let request = user.request(method, &path);
    user.ask(match body {
        Some(body) => request.json(&body),
        None => request,
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ride_that_is_not_ones_own_looks_as_one_that_is_not_there() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let sent = rider.send("ride_1", "Hello").await;
    let before = database.contents().await;
    for stranger in [server.rider("rider_2"), server.driver("driver_2"), server.driver("rider_3")] {
        for (not_mine, not_there) in requests_of_ride("ride_1").into_iter().zip(requests_of_ride("ride_none")) {
            let there = ask(&stranger, not_mine).await.problem(404, "ride_not_found");
            let nowhere = ask(&stranger, not_there).await.problem(404, "ride_not_found");
            assert_eq!((&there["detail"], &there["title"]), (&nowhere["detail"], &nowhere["title"]));
        }
        for id in [sent["id"].as_str().unwrap(), "0198c0de-0000-7000-8000-000000000000"] {
            let path = format!("messages/{id}");
            stranger.get(&path).await.problem(404, "message_not_found");
            stranger.patch(&path, json!({ "content": "x" })).await.problem(404, "message_not_found");
            stranger.delete(&path).await.problem(404, "message_not_found");
            stranger.post_nothing(&format!("{path}/read")).await.problem(404, "message_not_found");
            stranger.post_nothing(&format!("{path}/delivered")).await.problem(404, "message_not_found");
            stranger.put(&format!("{path}/reactions/%F0%9F%91%8D"), json!({})).await.problem(404, "message_not_found");
        }
    }
    assert_eq!(database.contents().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_role_may_not_is_forbidden() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let before = database.contents().await;
    for user in [&rider, &driver, &server.support()] {
        user.put_ride("ride_1", "rider_1", Some("driver_2")).await.problem(403, "forbidden");
        user.put_ride("ride_9", "rider_1", None).await.problem(403, "forbidden");
    }
    rider.set_status("ride_1", "arrived").await.problem(403, "forbidden");
    server.support().set_status("ride_1", "arrived").await.problem(403, "forbidden");
    for user in [rider.clone(), server.support(), server.service()] {
        user.post_nothing("rides/ride_1/accept").await.problem(403, "forbidden");
    }
    driver.on(&server).post_nothing("rides/ride_none/accept").await.problem(404, "ride_not_found");
    server.driver("driver_2").post_nothing("rides/ride_1/accept").await.problem(409, "ride_conflict");
    assert_eq!(database.contents().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn support_and_service_read_every_ride_they_name() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let sent = rider.send("ride_1", "Hello").await;
    for staff in [server.support(), server.service()] {
        assert_eq!(staff.history("ride_1", "").await["messages"][0], sent);
        assert_eq!(staff.get("rides/ride_1").await.expect(200).json()["rideId"], "ride_1");
        let mut stream = staff.stream("ride_1", "after=0").await.expect(200);
        stream.next_sync().await;
        assert_eq!(stream.find("message:new").await.data, sent);
        let said = staff.send("ride_1", "From the staff").await;
        assert_eq!(rider.get(&format!("messages/{}", said["id"].as_str().unwrap())).await.expect(200).json(), said);
        assert_eq!(staff.get("rides").await.expect(200).json()["rides"][0]["lastMessage"], said);
    }
}

/// The driver of `ride_1`, replaced.
struct Replaced {
    servers: [Server; 2],
    database: Database,
    old: User,
    new: User,
    rider: User,
    /// Of the old driver, one on each server, all at the replacement.
    streams: Vec<Stream>,
    /// The seq of the `ride:participants` at which they were replaced.
    at: i64,
}

async fn replace() -> Replaced {
    let database = Database::create().await;
    let servers = [Server::start(&database).await, Server::start(&database).await];
    let (rider, old) = servers[0].open_ride("ride_1").await;
    rider.send("ride_1", "for the first driver").await;
    let mut streams = Vec::new();
    let mut polls = Vec::new();
    for server in &servers {
        streams.push(server.live(&old, "ride_1").await);
        let user = old.on(server);
        polls.push(tokio::spawn(async move { user.poll("ride_1", "after=2&types=ride:participants&wait=20").await }));
    }
    servers[1].service().put_ride("ride_1", "rider_1", Some("driver_2")).await.expect(200);
    rider.send("ride_1", "for the second driver").await;
    let mut at = 0;
    for poll in polls {
        let polled = poll.await.unwrap();
        assert_eq!(polled["events"].as_array().unwrap().len(), 1, "{polled}");
        assert_eq!(polled["closed"], true, "{polled}");
        at = polled["events"][0]["id"].as_str().unwrap().parse().unwrap();
        assert_eq!(polled["events"][0]["data"]["left"], json!([{ "userId": "driver_1", "role": "driver" }]));
        assert!(!polled.to_string().contains("for the second"), "{polled}");
    }
    let new = servers[1].driver("driver_2");
    Replaced { servers, database, old, new, rider, streams, at }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_driver_sees_the_event_that_replaced_them_and_nothing_after() {
    let mut replaced = replace().await;
    for stream in &mut replaced.streams {
        let events = stream.until_end().await;
        let durable: Vec<_> = events.iter().filter(|event| event.id.is_some()).collect();
        let last = durable.last().unwrap();
        assert_eq!((last.kind.as_str(), last.seq()), ("ride:participants", replaced.at));
        assert!(!events.iter().any(|event| event.text.contains("for the second")), "{events:?}");
        assert_eq!(events.last().unwrap().kind, "stream:closing");
    }
    let first = replaced.rider.history("ride_1", "").await["messages"][0].clone();
    for server in &replaced.servers {
        let old = replaced.old.on(server);
        // Their part of the log is theirs to replay at most; everything else is not there any more.
        let rest = requests_of_ride("ride_1").into_iter().filter(|(_, path, _)| !path.contains("after=0"));
        for request in rest {
            ask(&old, request).await.problem(404, "ride_not_found");
        }
        old.get(&format!("messages/{}", first["id"].as_str().unwrap())).await.problem(404, "message_not_found");
        assert_eq!(old.get("rides").await.expect(200).json()["rides"], json!([]));
        let at_the_end = old.get(&format!("messages/rides/ride_1/poll?after={}&wait=0", replaced.at)).await;
        at_the_end.problem(404, "ride_not_found");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_driver_is_shown_the_ride_as_they_left_it() {
    let replaced = replace().await;
    let Replaced { servers, old, new, rider, at, .. } = &replaced;
    // What the ride has become meanwhile, and who follows it, where the car is, who has read what.
    let new = new.on(&servers[0]);
    let _live = [servers[0].live(&new, "ride_1").await, servers[0].live(rider, "ride_1").await];
    new.post("rides/ride_1/location", json!({ "lat": 52.52, "lng": 13.405 })).await.expect(202);
    new.post("messages/rides/ride_1/typing", json!({ "typing": true })).await.expect(202);
    new.set_status("ride_1", "arrived").await.expect(200);
    let last = rider.send("ride_1", "where are you?").await;
    new.mark(&last, "read").await.expect(200);
    let service = servers[0].service();
    service.put_ride("ride_1", "rider_1", Some("driver_3")).await.expect(200);
    for server in servers {
        let old = old.on(server);
        let sync = old.stream("ride_1", "after=1").await.next_sync().await;
        let polled = old.poll("ride_1", "after=1&wait=0").await;
        let whole = old.stream_all("after=0", None).await.next_sync().await;
        assert!(whole["state"]["rides"].get("ride_1").is_none_or(|state| *state == sync["state"]), "{whole}");
        for state in [&sync["state"], &polled["state"]] {
            assert_eq!(state["asOf"], *at);
            assert_eq!(
                (&state["ride"]["status"], &state["ride"]["driverId"]),
                (&json!("accepted"), &json!("driver_2"))
            );
            assert_eq!((&state["location"], &state["typing"]), (&Value::Null, &json!([])));
            let people = state["participants"].as_array().unwrap();
            let names: Vec<_> = people.iter().map(|person| person["userId"].as_str().unwrap()).collect();
            assert_eq!(names, ["rider_1", "driver_2"]);
            assert!(people.iter().all(|person| person["online"] == false && person["since"].is_null()), "{state}");
            let marks = state["receipts"].as_array().unwrap();
            assert!(marks.iter().all(|mark| mark["readSeq"] == 0 && mark["deliveredSeq"] == 0), "{state}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_new_driver_sees_the_log_from_their_own_beginning() {
    let replaced = replace().await;
    let Replaced { servers, new, rider, at, .. } = &replaced;
    let history = rider.history("ride_1", "").await;
    let (first, second) = (&history["messages"][0], &history["messages"][1]);
    for server in servers {
        let new = new.on(server);
        for query in ["after=0".to_owned(), "after=1".to_owned(), format!("after={}", at - 1)] {
            let mut stream = new.stream("ride_1", &query).await;
            let sync = stream.next_sync().await;
            assert_eq!((&sync["gap"], &sync["resumed"]), (&Value::Null, &Value::Bool(true)), "{query}: {sync}");
            let begin = stream.next_of("ride:participants").await;
            assert_eq!(begin.seq(), *at);
            assert_eq!(begin.data["joined"], json!([{ "userId": "driver_2", "role": "driver" }]));
            assert_eq!(stream.next_of("message:new").await.data, *second);
            let polled = new.poll("ride_1", &query).await;
            assert_eq!((&polled["events"][0]["id"], &polled["gap"]), (&json!(at.to_string()), &Value::Null));
        }
        let seen = new.history("ride_1", "").await;
        assert_eq!(seen["messages"], json!([second]));
        assert_eq!(new.history("ride_1", "?after=0").await["messages"], json!([second]));
        new.get(&format!("messages/{}", first["id"].as_str().unwrap())).await.problem(404, "message_not_found");
        new.mark(first, "read").await.problem(404, "message_not_found");
        let unread = new.get("messages/rides/ride_1/unread-count").await.expect(200).json();
        assert_eq!(unread["unreadCount"], 1);
    }
    assert!(replaced.database.head("ride_1").await > *at);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_to_older_messages_is_not_told_to_a_new_driver() {
    let replaced = replace().await;
    let Replaced { servers, old, new, rider, at, .. } = &replaced;
    let history = rider.history("ride_1", "").await;
    let (first, second) = (&history["messages"][0], &history["messages"][1]);
    let new = new.on(&servers[1]);
    let mut live = [servers[1].live(&new, "ride_1").await, new.stream_all("", None).await.expect(200)];
    live[1].next_sync().await;
    let support = servers[0].support();
    // Of the message to the driver before: an edit of its text and one of its metadata, reactions, a mark, its deletion.
    let path = format!("messages/{}", first["id"].as_str().unwrap());
    rider.edit(first, "still for the first driver").await.expect(200);
    rider.patch(&path, json!({ "metadata": { "secret": 1 } })).await.expect(200);
    let reaction = format!("{path}/reactions/%F0%9F%91%8D");
    rider.put(&reaction, json!({})).await.expect(204);
    rider.delete(&reaction).await.expect(204);
    support.mark(first, "delivered").await.expect(200);
    support.mark(first, "read").await.expect(200);
    rider.erase(first).await.expect(204);
    // Of theirs.
    rider.edit(second, "edited for the second").await.expect(200);
    rider
        .put(&format!("messages/{}/reactions/%F0%9F%91%8D", second["id"].as_str().unwrap()), json!({}))
        .await
        .expect(204);
    support.mark(second, "read").await.expect(200);
    rider.send("ride_1", "the end").await;
    let theirs = ["message:edited", "message:reaction", "message:read", "message:new"];
    for stream in &mut live {
        for kind in theirs {
            stream.next_of(kind).await;
        }
    }
    for server in servers {
        let new = new.on(server);
        let polled = new.poll("ride_1", &format!("after={}&wait=0", at + 1)).await;
        let types = data_types(&polled["events"]);
        assert_eq!(types[..theirs.len()], theirs, "{polled}");
        // Where all that there is is not theirs, the cursor moves past it.
        let polled = new.poll("ride_1", &format!("after={}&wait=0&types=message:deleted", at + 1)).await;
        assert_eq!(polled["events"], json!([]));
        assert!(polled["cursor"].as_str().unwrap().parse::<i64>().unwrap() >= at + 7, "{polled}");
        let all = new.poll_all("after=0&wait=0&types=message:*").await;
        assert_eq!(data_types(&all["events"])[..theirs.len() + 1], [&["message:new"], &theirs[..]].concat(), "{all}");
        assert!(!all.to_string().contains(first["id"].as_str().unwrap()), "{all}");
    }
    // Who was there then has it all; who was put back sees of their first time what they saw then, and what becomes of it.
    let told = rider.poll("ride_1", "after=0&wait=0").await;
    for kind in ["message:edited", "message:reaction", "message:deleted", "message:read"] {
        assert!(data_types(&told["events"]).contains(&kind), "{kind}: {told}");
    }
    let mark = "putting back";
    let early = rider.send("ride_1", mark).await;
    servers[0].service().put_ride("ride_1", "rider_1", Some("driver_1")).await.expect(200);
    rider.edit(&early, "not the first driver's").await.expect(200);
    let last = rider.send("ride_1", "to the first driver again").await;
    let told = old.on(&servers[0]).poll("ride_1", "after=0&wait=0").await;
    assert!(!told.to_string().contains("second") && !told.to_string().contains("not the first"), "{told}");
    assert_eq!(told["events"].as_array().unwrap().last().unwrap()["data"]["id"], last["id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_driver_who_returns_after_retention_is_told_their_gap_and_nothing_of_today() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    rider.send("ride_1", "for the first").await;
    server.service().put_ride("ride_1", "rider_1", Some("driver_2")).await.expect(200);
    rider.send("ride_1", "for the second").await;
    let new = server.driver("driver_2");
    for status in ["arrived", "in_progress", "completed"] {
        new.set_status("ride_1", status).await.expect(200);
    }
    let head = database.head("ride_1").await;
    assert_eq!(head, 7);
    let client = database.client().await;
    client.execute("delete from events where topic = 'ride/ride_1'", &[]).await.unwrap();
    for after in [0, 1, 2] {
        let gap = json!({ "from": after + 1, "to": 3 });
        let mut stream = driver.stream("ride_1", &format!("after={after}")).await.expect(200);
        let events = stream.until_end().await;
        let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
        assert_eq!(kinds, ["stream:sync", "stream:closing"]);
        assert_eq!(events[1].data["reason"], "removed");
        let polled = driver.poll("ride_1", &format!("after={after}&wait=0")).await;
        assert_eq!(polled["closed"], true, "{polled}");
        for told in [&events[0].data, &polled] {
            assert_eq!((&told["gap"], &told["cursor"], &told["resumed"]), (&gap, &json!("3"), &json!(false)), "{told}");
            let state = &told["state"];
            assert_eq!((&state["asOf"], &state["ride"]["status"]), (&json!(3), &json!("accepted")), "{told}");
            assert_eq!((&state["ride"]["driverId"], &state["ride"]["chat"]), (&json!("driver_2"), &json!("none")));
            assert!(!told.to_string().contains("completed"), "{told}");
        }
    }
    // By the stream of everything as well.
    let told = driver.poll_all("after=0&wait=0").await;
    assert!(!told.to_string().contains("completed"), "{told}");
    // One who was put back has a gap in each of their times, and none between.
    server.service().put_ride("ride_2", "rider_1", Some("driver_1")).await.expect(201);
    server.service().put_ride("ride_2", "rider_1", Some("driver_2")).await.expect(200);
    rider.send("ride_2", "for the second").await;
    server.service().put_ride("ride_2", "rider_1", Some("driver_1")).await.expect(200);
    rider.send("ride_2", "for the first again").await;
    client.execute("delete from events where topic = 'ride/ride_2'", &[]).await.unwrap();
    let mut stream = driver.stream("ride_2", "after=0").await.expect(200);
    assert_eq!(stream.next_sync().await["gap"], json!({ "from": 1, "to": 2 }));
    assert_eq!(stream.next_sync().await["gap"], json!({ "from": 4, "to": 5 }));
    let last = rider.send("ride_2", "and now").await;
    assert_eq!(stream.next_of("message:new").await.data["id"], last["id"]);
    // By polls one gap each, before the events of the answer.
    let first = driver.poll("ride_2", "after=0&wait=0").await;
    assert_eq!((&first["gap"], &first["cursor"]), (&json!({ "from": 1, "to": 2 }), &json!("2")));
    assert_eq!((&first["events"], &first["hasMore"]), (&json!([]), &json!(true)));
    let second = driver.poll("ride_2", "after=2&wait=0").await;
    assert_eq!((&second["gap"], &second["events"][0]["data"]["id"]), (&json!({ "from": 4, "to": 5 }), &last["id"]));
}
