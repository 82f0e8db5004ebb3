//! Access rights, and the part of a ride's log that each participant can see.

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

async fn send_request(user: &User, (method, path, body): (Method, String, Option<Value>)) -> crate::support::Response {
    let request = user.request(method, &path);
    user.execute(match body {
        Some(body) => request.json(&body),
        None => request,
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ride_of_others_is_indistinguishable_from_a_missing_ride() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let (rider, _) = server.open_ride("ride_1").await;
    let sent = rider.send("ride_1", "Hello").await;
    let before = database.contents().await;
    for outsider in [server.rider("rider_2"), server.driver("driver_2"), server.driver("rider_3")] {
        for (not_mine, not_there) in requests_of_ride("ride_1").into_iter().zip(requests_of_ride("ride_none")) {
            let there = send_request(&outsider, not_mine).await.problem(404, "ride_not_found");
            let nowhere = send_request(&outsider, not_there).await.problem(404, "ride_not_found");
            assert_eq!((&there["detail"], &there["title"]), (&nowhere["detail"], &nowhere["title"]));
        }
        for id in [sent["id"].as_str().unwrap(), "0198c0de-0000-7000-8000-000000000000"] {
            let path = format!("messages/{id}");
            outsider.get(&path).await.problem(404, "message_not_found");
            outsider.patch(&path, json!({ "content": "x" })).await.problem(404, "message_not_found");
            outsider.delete(&path).await.problem(404, "message_not_found");
            outsider.post_empty(&format!("{path}/read")).await.problem(404, "message_not_found");
            outsider.post_empty(&format!("{path}/delivered")).await.problem(404, "message_not_found");
            outsider.put(&format!("{path}/reactions/%F0%9F%91%8D"), json!({})).await.problem(404, "message_not_found");
        }
    }
    assert_eq!(database.contents().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_of_other_roles_are_forbidden() {
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
        user.post_empty("rides/ride_1/accept").await.problem(403, "forbidden");
    }
    driver.on(&server).post_empty("rides/ride_none/accept").await.problem(404, "ride_not_found");
    server.driver("driver_2").post_empty("rides/ride_1/accept").await.problem(409, "ride_conflict");
    assert_eq!(database.contents().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn support_and_service_can_read_every_ride() {
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
        let staff_message = staff.send("ride_1", "From the staff").await;
        assert_eq!(
            rider.get(&format!("messages/{}", staff_message["id"].as_str().unwrap())).await.expect(200).json(),
            staff_message
        );
        assert_eq!(staff.get("rides").await.expect(200).json()["rides"][0]["lastMessage"], staff_message);
    }
}

/// A replaced driver of `ride_1`.
struct Replaced {
    servers: [Server; 2],
    database: Database,
    old: User,
    new: User,
    rider: User,
    /// Streams of the replaced driver, one on each server. All have reached the replacement.
    streams: Vec<Stream>,
    /// The seq of the `ride:participants` event that removed the driver.
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
        streams.push(server.live_stream(&old, "ride_1").await);
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
async fn a_replaced_driver_sees_the_replacement_event_and_nothing_after_it() {
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
        // Only a replay of the driver's part of the log is possible. Everything else returns 404.
        let rest = requests_of_ride("ride_1").into_iter().filter(|(_, path, _)| !path.contains("after=0"));
        for request in rest {
            send_request(&old, request).await.problem(404, "ride_not_found");
        }
        old.get(&format!("messages/{}", first["id"].as_str().unwrap())).await.problem(404, "message_not_found");
        assert_eq!(old.get("rides").await.expect(200).json()["rides"], json!([]));
        let after_removal = old.get(&format!("messages/rides/ride_1/poll?after={}&wait=0", replaced.at)).await;
        after_removal.problem(404, "ride_not_found");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_driver_sees_the_ride_as_of_the_replacement() {
    let replaced = replace().await;
    let Replaced { servers, old, new, rider, at, .. } = &replaced;
    // Later changes: the ride, presence, the location and receipts.
    let new = new.on(&servers[0]);
    let _live = [servers[0].live_stream(&new, "ride_1").await, servers[0].live_stream(rider, "ride_1").await];
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
            let participants = state["participants"].as_array().unwrap();
            let names: Vec<_> = participants.iter().map(|one| one["userId"].as_str().unwrap()).collect();
            assert_eq!(names, ["rider_1", "driver_2"]);
            assert!(participants.iter().all(|one| one["online"] == false && one["since"].is_null()), "{state}");
            let receipts = state["receipts"].as_array().unwrap();
            assert!(receipts.iter().all(|receipt| receipt["readSeq"] == 0 && receipt["deliveredSeq"] == 0), "{state}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_driver_sees_the_log_from_their_from_seq() {
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
            let begin = stream.next_of_type("ride:participants").await;
            assert_eq!(begin.seq(), *at);
            assert_eq!(begin.data["joined"], json!([{ "userId": "driver_2", "role": "driver" }]));
            assert_eq!(stream.next_of_type("message:new").await.data, *second);
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
async fn a_new_driver_gets_no_events_about_older_messages() {
    let replaced = replace().await;
    let Replaced { servers, old, new, rider, at, .. } = &replaced;
    let history = rider.history("ride_1", "").await;
    let (first, second) = (&history["messages"][0], &history["messages"][1]);
    let new = new.on(&servers[1]);
    let mut live = [servers[1].live_stream(&new, "ride_1").await, new.stream_all("", None).await.expect(200)];
    live[1].next_sync().await;
    let support = servers[0].support();
    // Changes to the message to the previous driver: edits of content and metadata, reactions, a receipt, and deletion.
    let path = format!("messages/{}", first["id"].as_str().unwrap());
    rider.edit(first, "still for the first driver").await.expect(200);
    rider.patch(&path, json!({ "metadata": { "secret": 1 } })).await.expect(200);
    let reaction = format!("{path}/reactions/%F0%9F%91%8D");
    rider.put(&reaction, json!({})).await.expect(204);
    rider.delete(&reaction).await.expect(204);
    support.mark(first, "delivered").await.expect(200);
    support.mark(first, "read").await.expect(200);
    rider.delete_message(first).await.expect(204);
    // A change to a message that the driver can see.
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
            stream.next_of_type(kind).await;
        }
    }
    for server in servers {
        let new = new.on(server);
        let polled = new.poll("ride_1", &format!("after={}&wait=0", at + 1)).await;
        let types = data_types(&polled["events"]);
        assert_eq!(types[..theirs.len()], theirs, "{polled}");
        // If no event is visible to the driver, the cursor still moves past them.
        let polled = new.poll("ride_1", &format!("after={}&wait=0&types=message:deleted", at + 1)).await;
        assert_eq!(polled["events"], json!([]));
        assert!(polled["cursor"].as_str().unwrap().parse::<i64>().unwrap() >= at + 7, "{polled}");
        let all = new.poll_all("after=0&wait=0&types=message:*").await;
        assert_eq!(data_types(&all["events"])[..theirs.len() + 1], [&["message:new"], &theirs[..]].concat(), "{all}");
        assert!(!all.to_string().contains(first["id"].as_str().unwrap()), "{all}");
    }
    // A participant of that time sees all. A driver assigned again sees the earlier interval, and later changes to its messages.
    let polled = rider.poll("ride_1", "after=0&wait=0").await;
    for kind in ["message:edited", "message:reaction", "message:deleted", "message:read"] {
        assert!(data_types(&polled["events"]).contains(&kind), "{kind}: {polled}");
    }
    let content = "putting back";
    let early = rider.send("ride_1", content).await;
    servers[0].service().put_ride("ride_1", "rider_1", Some("driver_1")).await.expect(200);
    rider.edit(&early, "not the first driver's").await.expect(200);
    let last = rider.send("ride_1", "to the first driver again").await;
    let polled = old.on(&servers[0]).poll("ride_1", "after=0&wait=0").await;
    assert!(!polled.to_string().contains("second") && !polled.to_string().contains("not the first"), "{polled}");
    assert_eq!(polled["events"].as_array().unwrap().last().unwrap()["data"]["id"], last["id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_driver_who_reconnects_after_retention_gets_a_gap_and_no_current_data() {
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
        for response in [&events[0].data, &polled] {
            assert_eq!(
                (&response["gap"], &response["cursor"], &response["resumed"]),
                (&gap, &json!("3"), &json!(false)),
                "{response}"
            );
            let state = &response["state"];
            assert_eq!((&state["asOf"], &state["ride"]["status"]), (&json!(3), &json!("accepted")), "{response}");
            assert_eq!((&state["ride"]["driverId"], &state["ride"]["chat"]), (&json!("driver_2"), &json!("none")));
            assert!(!response.to_string().contains("completed"), "{response}");
        }
    }
    // The same on a merged stream.
    let polled_all = driver.poll_all("after=0&wait=0").await;
    assert!(!polled_all.to_string().contains("completed"), "{polled_all}");
    // A driver assigned again has a gap in each interval and none between.
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
    assert_eq!(stream.next_of_type("message:new").await.data["id"], last["id"]);
    // A poll returns one gap per response, before its events.
    let first = driver.poll("ride_2", "after=0&wait=0").await;
    assert_eq!((&first["gap"], &first["cursor"]), (&json!({ "from": 1, "to": 2 }), &json!("2")));
    assert_eq!((&first["events"], &first["hasMore"]), (&json!([]), &json!(true)));
    let second = driver.poll("ride_2", "after=2&wait=0").await;
    assert_eq!((&second["gap"], &second["events"][0]["data"]["id"]), (&json!({ "from": 4, "to": 5 }), &last["id"]));
}
