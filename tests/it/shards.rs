//! A deployment with several shards: rides and users in different ones, seen through the API.

use std::collections::BTreeMap;

use ridewire::domain::{RideId, ShardMap, UserId};
use serde_json::{Value, json};

use crate::support::{Database, Server, Stream, User, eventually, ridewire};

const SHARDS: u16 = 4;

fn map() -> ShardMap {
    ShardMap::new(SHARDS).unwrap()
}

fn shard_of_ride(ride: &str) -> u16 {
    map().of_ride(&RideId::parse(ride).unwrap()).number()
}

/// Returns a ride id of each shard.
fn rides() -> Vec<String> {
    let ids = (0..100).map(|n| format!("ride_{n}")).rev();
    ids.map(|id| (shard_of_ride(&id), id)).collect::<BTreeMap<_, _>>().into_values().collect()
}

/// Opens a merged stream of events about rides and messages that begins now.
async fn live(user: &User) -> Stream {
    let mut stream = user.stream_all("types=message:new,ride:*,notice", None).await.expect(200);
    stream.next_sync().await;
    stream
}

/// Reads events until there is one of a type for each ride. Returns them by ride. No ride may have two.
async fn one_of_each(stream: &mut Stream, kind: &str, rides: &[String]) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    while found.len() < rides.len() {
        let event = stream.next_event().await;
        if event.kind == kind {
            let ride = event.data["rideId"].as_str().or(event.data["ride"]["rideId"].as_str()).unwrap().to_owned();
            assert!(rides.contains(&ride), "{event:?}");
            assert!(found.insert(ride, event.data.clone()).is_none(), "twice: {event:?}");
        }
    }
    found
}

async fn listed(user: &User, query: &str) -> Vec<String> {
    let page = user.get(&format!("rides?{query}")).await.expect(200).json();
    page["rides"].as_array().unwrap().iter().map(|ride| ride["rideId"].as_str().unwrap().to_owned()).collect()
}

async fn until_listed(user: &User, query: &str, expected: &[&str]) {
    eventually("the rides are listed", async || (listed(user, query).await == expected).then_some(())).await;
}

async fn unread(user: &User) -> Value {
    user.get("messages/unread-count").await.expect(200).json()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_receives_and_lists_rides_of_all_shards() {
    let database = Database::with_shards(SHARDS).await;
    let (one, two) = (Server::start(&database).await, Server::start(&database).await);
    let rides = rides();
    assert_eq!(rides.len(), 4);
    let (rider, driver) = (one.rider("rider_1"), one.driver("driver_1"));
    let mut streams = [live(&rider.on(&two)).await, live(&driver).await];
    for ride in &rides {
        one.service().put_ride(ride, "rider_1", Some("driver_1")).await.expect(201);
    }
    for stream in &mut streams {
        let assigned = one_of_each(stream, "ride:assigned", &rides).await;
        assert!(assigned.values().all(|data| data["fromSeq"] == 1), "{assigned:?}");
    }
    let mut sent_messages = BTreeMap::new();
    for ride in &rides {
        let message = driver.send(ride, &format!("Hello on {ride}")).await;
        assert_eq!(
            two.rider("rider_1").get(&format!("messages/{}", message["id"].as_str().unwrap())).await.json(),
            message
        );
        sent_messages.insert(ride.clone(), message);
    }
    for stream in &mut streams {
        assert_eq!(one_of_each(stream, "message:new", &rides).await, sent_messages);
    }

    // A merged stream that resumes or begins later contains them too.
    let last = streams[0].last_id.clone();
    let polled = rider.poll_all(&format!("after={last}&wait=0&types=ride:*")).await;
    assert_eq!((&polled["events"], &polled["resumed"]), (&json!([]), &json!(true)), "{polled}");
    assert_eq!(polled["state"]["rides"].as_object().unwrap().len(), 4);

    let newest_first: Vec<&str> = rides.iter().rev().map(String::as_str).collect();
    until_listed(&rider.on(&two), "", &newest_first).await;
    let page = rider.get("rides?limit=3").await.expect(200).json();
    let next = page["next"].as_str().unwrap();
    assert_eq!(listed(&rider, &format!("limit=3&before={next}")).await, newest_first[3..]);
    assert_eq!(listed(&rider, &format!("before={}", newest_first[1])).await, newest_first[2..]);
    assert_eq!(listed(&one.support(), "").await, newest_first);
    assert_eq!(listed(&one.support(), "limit=2").await, newest_first[..2]);

    let counts = unread(&rider).await;
    assert_eq!((&counts["total"], counts["rides"].as_array().unwrap().len()), (&json!(4), 4), "{counts}");
    rider.mark(&sent_messages[&rides[2]], "read").await.expect(200);
    assert_eq!(unread(&rider.on(&two)).await["total"], 3);

    // A status change reaches the list of the user's shard.
    driver.set_status(&rides[1], "arrived").await.expect(200);
    until_listed(&rider, "status=arrived", &[&rides[1]]).await;
    until_listed(&driver, "status=accepted", &[&rides[3], &rides[2], &rides[0]]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_and_reopening_reach_the_users_of_other_shards_once() {
    let database = Database::with_shards(SHARDS).await;
    let settings = [("RIDEWIRE_CHAT_GRACE", "0s")];
    let (one, two) = (Server::start_with(&database, &settings).await, Server::start_with(&database, &settings).await);
    let rides = rides();
    let (rider, driver) = (one.rider("rider_1"), one.driver("driver_1"));
    let mut stream = live(&rider.on(&two)).await;
    for ride in &rides {
        one.service().put_ride(ride, "rider_1", Some("driver_1")).await.expect(201);
        driver.send(ride, "Hello").await;
    }
    one_of_each(&mut stream, "message:new", &rides).await;
    for ride in &rides {
        rider.post_empty(&format!("rides/{ride}/cancel")).await.expect(200);
    }
    let closed = one_of_each(&mut stream, "ride:closed", &rides).await;
    assert!(closed.values().all(|data| data["reason"] == "ride_over"), "{closed:?}");
    eventually("no ride is followed", async || {
        let rides = rider.poll_all("").await["state"]["rides"].as_object().unwrap().len();
        (rides == 0).then_some(())
    })
    .await;
    // Messages of closed rides stay unread until they are read.
    assert_eq!(unread(&rider).await["total"], 4);
    for ride in &rides {
        let newest = rider.history(ride, "?limit=1").await["messages"][0].clone();
        rider.mark(&newest, "read").await.expect(200);
    }
    assert_eq!(unread(&rider).await, json!({ "total": 0, "rides": [] }));

    let until = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    for ride in &rides {
        let body = json!({ "until": until.to_string(), "reason": "Lost property" });
        two.support().post(&format!("rides/{ride}/reopen"), body).await.expect(200);
        driver.send(ride, "Found it").await;
    }
    one_of_each(&mut stream, "message:new", &rides).await;
    eventually("the counts include the reopened rides", async || (unread(&rider).await["total"] == 4).then_some(()))
        .await;
    assert_eq!(rider.poll_all("").await["state"]["rides"].as_object().unwrap().len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_driver_of_another_shard_loses_the_ride() {
    let database = Database::with_shards(SHARDS).await;
    let server = Server::start(&database).await;
    let rides = rides();
    let (before, after) = (server.driver("driver_1"), server.driver("driver_2"));
    let (mut old, mut new) = (live(&before).await, live(&after).await);
    for ride in &rides {
        server.service().put_ride(ride, "rider_1", Some("driver_1")).await.expect(201);
    }
    one_of_each(&mut old, "ride:assigned", &rides).await;
    for ride in &rides {
        server.service().put_ride(ride, "rider_1", Some("driver_2")).await.expect(200);
    }
    let removed = one_of_each(&mut old, "ride:closed", &rides).await;
    assert!(removed.values().all(|data| data["reason"] == "removed" && data["lastSeq"] == 2), "{removed:?}");
    let assigned = one_of_each(&mut new, "ride:assigned", &rides).await;
    assert!(assigned.values().all(|data| data["fromSeq"] == 2), "{assigned:?}");
    until_listed(&before, "", &[]).await;
    assert_eq!(listed(&after, "").await.len(), 4);
    for ride in &rides {
        before.get(&format!("rides/{ride}")).await.problem(404, "ride_not_found");
        after.get(&format!("rides/{ride}")).await.expect(200);
    }
}

/// A failover without a synchronous standby, or a restored backup, may lose the last ids of a shard's outbox. Other shards have applied
/// them, and do not skip the rows that follow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_arrive_although_a_database_has_lost_the_last_ids_of_its_outbox() {
    let database = Database::with_shards(SHARDS).await;
    let server = Server::start(&database).await;
    let rides = rides();
    let mut stream = live(&server.driver("driver_1")).await;
    for ride in &rides {
        server.service().put_ride(ride, "rider_1", Some("driver_1")).await.expect(201);
    }
    one_of_each(&mut stream, "ride:assigned", &rides).await;
    let client = database.client().await;
    for schema in ["public", "public_shard_1", "public_shard_2", "public_shard_3"] {
        client.execute(&format!("select setval('{schema}.outbox_id_seq', 1)"), &[]).await.unwrap();
    }
    for ride in &rides {
        server.service().put_ride(ride, "rider_1", Some("driver_2")).await.expect(200);
    }
    one_of_each(&mut stream, "ride:closed", &rides).await;
    until_listed(&server.driver("driver_1"), "", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ride_that_retention_has_deleted_leaves_the_lists_and_can_be_created_again() {
    let database = Database::with_shards(SHARDS).await;
    let settings = [
        ("RIDEWIRE_CHAT_GRACE", "0s"),
        ("RIDEWIRE_LOG_RETENTION", "1s"),
        ("RIDEWIRE_MESSAGE_RETENTION", "1s"),
        ("RIDEWIRE_RETENTION_PERIOD", "1s"),
    ];
    let server = Server::start_with(&database, &settings).await;
    let (rides, rider) = (rides(), server.rider("rider_1"));
    for ride in &rides {
        server.service().put_ride(ride, "rider_1", Some("driver_1")).await.expect(201);
        rider.send(ride, "Hello").await;
        rider.post_empty(&format!("rides/{ride}/cancel")).await.expect(200);
    }
    until_listed(&rider, "", &[]).await;
    until_listed(&server.support(), "", &[]).await;
    let mut stream = live(&rider).await;
    for ride in &rides {
        server.service().put_ride(ride, "rider_1", Some("driver_2")).await.expect(201);
    }
    one_of_each(&mut stream, "ride:assigned", &rides).await;
    until_listed(&rider, "", &rides.iter().rev().map(String::as_str).collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notice_and_an_erasure_reach_all_shards() {
    let database = Database::with_shards(SHARDS).await;
    let server = Server::start(&database).await;
    let users: Vec<_> = (0..8).map(|n| format!("rider_{n}")).collect();
    let shards = users.iter().map(|user| map().of_user(&UserId::parse(user).unwrap()).number());
    assert!(shards.collect::<std::collections::BTreeSet<_>>().len() > 2, "users of several shards");
    let mut streams = Vec::new();
    for user in &users {
        streams.push(live(&server.rider(user)).await);
    }
    let names: Vec<_> = users.iter().map(String::as_str).collect();
    let sent = server.service().broadcast(&names, json!({ "text": "Rain" })).await.expect(202).json();
    assert_eq!(sent["count"], 8);
    for stream in &mut streams {
        assert_eq!(stream.next_of_type("notice").await.data["data"]["text"], "Rain");
    }

    let rides = rides();
    for ride in &rides {
        server.service().put_ride(ride, "rider_1", Some("driver_1")).await.expect(201);
        server.rider("rider_1").send(ride, "a secret of the rider").await;
        server.driver("driver_1").send(ride, "not erased").await;
    }
    let erased = server.service().delete("users/rider_1").await.expect(200).json();
    assert_eq!(erased["messages"], 4);
    for ride in &rides {
        let history = server.driver("driver_1").history(ride, "").await;
        let contents: Vec<_> = history["messages"].as_array().unwrap().iter().map(|one| &one["content"]).collect();
        assert_eq!(contents, [&Value::Null, &json!("not erased")]);
    }
}

/// Runs `ridewire migrate`. Returns whether it succeeded, and its log.
async fn migrate(database: &Database, arguments: &[&str], settings: &[(&str, &str)]) -> (bool, String) {
    let mut command = ridewire();
    command.arg("migrate").args(arguments).env("DATABASE_URL", &database.url).envs(settings.iter().copied());
    let output = command.output().await.unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_shards_is_chosen_once_and_each_address_is_checked() {
    let database = Database::create().await;
    let (is_created, log) = migrate(&database, &["--shards", "2"], &[]).await;
    assert!(is_created, "{log}");
    assert!(migrate(&database, &["--shards", "2"], &[]).await.0, "a repetition changes nothing");
    assert!(migrate(&database, &[], &[]).await.0);
    let rejected = async |arguments: &[&str], settings: &[(&str, &str)], expected: &str| {
        let (is_accepted, log) = migrate(&database, arguments, settings).await;
        assert!(!is_accepted && log.contains(expected), "{arguments:?} {settings:?}: {log}");
    };
    rejected(&["--shards", "4"], &[], "the deployment has 2 shards; their number never changes").await;
    rejected(&["--shards", "0"], &[], "--shards: must be 1 to 1024").await;
    let elsewhere = |number: u16, database: &Database| format!("{number}={}", database.url);
    let unknown = elsewhere(2, &database);
    rejected(&[], &[("RIDEWIRE_SHARD_DATABASES", &unknown)], "there is no shard 2; the deployment has 2").await;
    rejected(&[], &[("RIDEWIRE_SHARD_DATABASES", "nonsense")], "write NUMBER=URL").await;
    rejected(&[], &[("RIDEWIRE_SHARD_DATABASES", "0=postgres://u@h/d")], "shard 0 is in the database").await;
    let other = Database::create().await;
    let wrong = elsewhere(1, &other);
    rejected(&[], &[("RIDEWIRE_SHARD_DATABASES", &wrong)], "not shard 1 of this deployment").await;
    // The schema of the second shard is no deployment.
    let separator = if database.url.contains('?') { '&' } else { '?' };
    let second = format!("{}{separator}options=-c%20search_path%3Dpublic_shard_1", database.url);
    let (is_accepted, log) = migrate(&database, &[], &[("DATABASE_URL", &second)]).await;
    assert!(!is_accepted && log.contains("shard 1 of 2") && log.contains("not shard 0"), "{log}");

    // A shard that another deployment uses is not taken over.
    let live = Database::with_shards(2).await;
    let server = Server::start(&live).await;
    for ride in rides() {
        server.service().put_ride(&ride, "rider_1", None).await.expect(201);
    }
    let (taken, fresh) = (elsewhere(1, &live), Database::create().await);
    let (is_accepted, log) = migrate(&fresh, &["--shards", "2"], &[("RIDEWIRE_SHARD_DATABASES", &taken)]).await;
    assert!(!is_accepted && log.contains("a schema has data already"), "{log}");

    // A deployment with data keeps its one shard.
    let used = Database::create().await;
    Server::start(&used).await.open_ride("ride_1").await;
    let (is_accepted, log) = migrate(&used, &["--shards", "2"], &[]).await;
    assert!(!is_accepted && log.contains("a schema has data already"), "{log}");
}
