//! Webhooks: at-least-once delivery in the order of each ride, for every behavior of an endpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::{Database, Received, Receiver, Reply, Server, User, assert_in_order, eventually};

/// Short retry delays, and endpoints on this machine are allowed.
const SETTINGS: [(&str, &str); 4] = [
    ("RIDEWIRE_WEBHOOK_ALLOW_HOSTS", "127.0.0.1"),
    ("RIDEWIRE_WEBHOOK_RETRIES", "50ms"),
    ("RIDEWIRE_FALLBACK_POLL", "500ms"),
    // Then the feed contains only events of logs.
    ("RIDEWIRE_PUSH_AFTER", "0s"),
];

async fn server(database: &Database) -> Server {
    Server::start_with(database, &SETTINGS).await
}

/// Creates an endpoint for these types and returns it.
async fn webhook(service: &User, receiver: &Receiver, path: &str, types: &[&str]) -> Value {
    let url = format!("{}{path}", receiver.base);
    service.post("webhooks", json!({ "url": url, "types": types })).await.expect(201).json()
}

fn path(webhook: &Value) -> String {
    format!("webhooks/{}", webhook["id"].as_str().unwrap())
}

async fn state_of(service: &User, webhook: &Value) -> String {
    service.get(&path(webhook)).await.expect(200).json()["state"].as_str().unwrap().to_owned()
}

async fn deliveries(service: &User, webhook: &Value, query: &str) -> Vec<Value> {
    let page = service.get(&format!("{}/deliveries?{query}", path(webhook))).await.expect(200).json();
    page["deliveries"].as_array().unwrap().clone()
}

/// Returns the contents of the delivered messages, without repeated deliveries of an event.
fn contents(received: &[Received]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let is_first = |request: &&Received| seen.insert(request.header("webhook-id").to_owned());
    let content = |request: &Received| request.json()["data"]["data"]["content"].as_str().unwrap_or("-").to_owned();
    received.iter().filter(is_first).map(content).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_delivery_is_signed_and_equals_the_event_in_the_feed() {
    let database = Database::create().await;
    let (server, receiver) = (server(&database).await, Receiver::accepting_all().await);
    let service = server.service();
    server.open_ride("ride_0").await;
    let begin = eventually("the feed", async || {
        let cursor = service.get("feed/poll").await.expect(200).json()["cursor"].clone();
        (cursor != "0").then_some(cursor)
    })
    .await;
    let created = service
        .post("webhooks", json!({ "url": format!("{}/all", receiver.base), "description": "Trips" }))
        .await
        .expect(201)
        .json();
    let secret = created["secret"].as_str().unwrap();
    let mut shown = created.clone();
    shown.as_object_mut().unwrap().remove("secret");
    assert_eq!(service.get(&path(&created)).await.expect(200).json(), shown, "the secret is returned only on creation");
    assert_eq!(service.get("webhooks").await.expect(200).json(), json!({ "webhooks": [shown] }));
    assert_eq!((&shown["types"], &shown["state"]), (&json!(["*"]), &json!("active")));

    let (rider, driver) = server.open_ride("ride_1").await;
    let hello = rider.send("ride_1", "Hello").await;
    driver.mark(&hello, "read").await.expect(200);
    service.broadcast(&["rider_1"], json!({ "text": "Rain" })).await.expect(202);
    let feed = eventually("all events are in the feed", async || {
        let query = format!("feed/poll?after={}&wait=0", begin.as_str().unwrap());
        let events = service.get(&query).await.expect(200).json()["events"].as_array().unwrap().clone();
        (events.last().is_some_and(|last| last["type"] == "notice")).then_some(events)
    })
    .await;
    let accepted = receiver.until_accepted("/all", feed.len()).await;
    assert_eq!(accepted.len(), feed.len());
    assert_in_order(&accepted);
    for event in &feed {
        let data = &event["data"];
        let sent = accepted.iter().find(|request| request.json()["data"] == *data).unwrap_or_else(|| panic!("{event}"));
        let body = sent.json();
        assert_eq!(body["type"], event["type"].as_str().unwrap().replace(':', "."));
        assert_eq!((&body["timestamp"], body.as_object().unwrap().len()), (&data["at"], 3));
        assert!(sent.is_signed_with(secret), "{sent:?}");
        assert!(sent.header("webhook-id").starts_with("evt_"), "{sent:?}");
        assert_eq!(sent.header("content-type"), "application/json");
    }
    let ids: BTreeSet<_> = accepted.iter().map(|request| request.header("webhook-id").to_owned()).collect();
    assert_eq!(ids.len(), accepted.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_of_a_ride_stay_in_order_during_failures_and_delay_no_other_ride() {
    let database = Database::create().await;
    let server = server(&database).await;
    let is_open = Arc::new(AtomicBool::new(false));
    let receiver = Receiver::start({
        let is_open = Arc::clone(&is_open);
        move |request| {
            let is_first_ride = request.log_position().0 == "ride/ride_1";
            Reply::Status(if is_first_ride && !is_open.load(Ordering::Relaxed) { 500 } else { 200 })
        }
    })
    .await;
    let service = server.service();
    let created = webhook(&service, &receiver, "/", &["message:new"]).await;
    let rider = server.open_ride("ride_1").await.0;
    server.open_ride("ride_2").await;
    for n in 0..5 {
        rider.send("ride_1", &format!("one {n}")).await;
        rider.send("ride_2", &format!("two {n}")).await;
    }
    let accepted = receiver.until_accepted("/", 5).await;
    assert_eq!(contents(&accepted), ["two 0", "two 1", "two 2", "two 3", "two 4"]);
    eventually("several attempts", async || {
        let pending = deliveries(&service, &created, "state=pending").await;
        let oldest = pending.last()?;
        (pending.len() == 5 && oldest["attempts"].as_i64()? > 2).then(|| {
            assert_eq!((&oldest["status"], &oldest["type"]), (&json!(500), &json!("message.new")), "{oldest}");
            assert!(oldest["error"].is_string() && pending[0]["attempts"] == 0, "{pending:?}");
        })
    })
    .await;
    let tried: BTreeSet<_> =
        contents(&receiver.received("/")).into_iter().filter(|text| text.starts_with("one")).collect();
    assert_eq!(tried, BTreeSet::from(["one 0".to_owned()]), "the next event waits");
    is_open.store(true, Ordering::Relaxed);
    let accepted = receiver.until_accepted("/", 10).await;
    assert_eq!(contents(&accepted)[5..], ["one 0", "one 1", "one 2", "one 3", "one 4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unresponsive_endpoint_delays_no_other() {
    let database = Database::create().await;
    let server = server(&database).await;
    let receiver =
        Receiver::start(|request| if request.path == "/dead" { Reply::Never } else { Reply::Status(200) }).await;
    let service = server.service();
    let dead = webhook(&service, &receiver, "/dead", &["message.*"]).await;
    webhook(&service, &receiver, "/alive", &["message.*"]).await;
    // More rides than concurrent attempts per endpoint.
    let rides: Vec<_> = (0..80).map(|n| format!("ride_{n}")).collect();
    for ride in &rides {
        server.open_ride(ride).await.0.send(ride, "Hello").await;
    }
    receiver.until_accepted("/alive", rides.len()).await;
    assert!(!receiver.received("/dead").is_empty());
    assert_eq!(deliveries(&service, &dead, "state=delivered").await.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_returns_410_is_disabled_and_continues_when_activated_again() {
    let database = Database::create().await;
    let server = server(&database).await;
    let is_gone = Arc::new(AtomicBool::new(true));
    let receiver = Receiver::start({
        let is_gone = Arc::clone(&is_gone);
        move |_| Reply::Status(if is_gone.load(Ordering::Relaxed) { 410 } else { 200 })
    })
    .await;
    let service = server.service();
    let created = webhook(&service, &receiver, "/", &["message:new"]).await;
    let rider = server.open_ride("ride_1").await.0;
    rider.send("ride_1", "one").await;
    eventually("disabled", async || (state_of(&service, &created).await == "disabled").then_some(())).await;
    rider.send("ride_1", "two").await;
    is_gone.store(false, Ordering::Relaxed);
    let active = service.patch(&path(&created), json!({ "state": "active" })).await.expect(200).json();
    assert_eq!(active["state"], "active");
    assert_eq!(contents(&receiver.until_accepted("/", 2).await), ["one", "two"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_410_response_to_a_test_event_disables_the_endpoint() {
    let database = Database::create().await;
    let server = server(&database).await;
    let receiver = Receiver::start(|_| Reply::Status(410)).await;
    let service = server.service();
    let created = webhook(&service, &receiver, "/", &["message:new"]).await;
    let tested = service.post_empty(&format!("{}/test", path(&created))).await.expect(200).json();
    assert_eq!(tested["status"], 410);
    assert_eq!(state_of(&service, &created).await, "disabled");
    // Only the server can set this state. Clients can leave it.
    service.patch(&path(&created), json!({ "state": "disabled" })).await.invalid_field("/state");
    assert_eq!(
        service.patch(&path(&created), json!({ "state": "active" })).await.expect(200).json()["state"],
        "active"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_is_not_retried_before_its_retry_after() {
    let database = Database::create().await;
    let server = server(&database).await;
    let times = Arc::new(std::sync::Mutex::new(Vec::new()));
    let receiver = Receiver::start({
        let times = Arc::clone(&times);
        move |_| {
            let mut times = times.lock().unwrap();
            times.push(std::time::Instant::now());
            if times.len() == 1 { Reply::Header(429, "retry-after", "2".to_owned()) } else { Reply::Status(200) }
        }
    })
    .await;
    webhook(&server.service(), &receiver, "/", &["message:new"]).await;
    server.open_ride("ride_1").await.0.send("ride_1", "Hello").await;
    receiver.until_accepted("/", 1).await;
    let times = times.lock().unwrap();
    assert!(times[1] - times[0] >= std::time::Duration::from_secs(2), "{times:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_secrets_sign_for_a_day_after_a_rotation() {
    let database = Database::create().await;
    let (server, receiver) = (server(&database).await, Receiver::accepting_all().await);
    let service = server.service();
    let created = webhook(&service, &receiver, "/", &["message:new"]).await;
    let old = created["secret"].as_str().unwrap();
    let rotated = service.post_empty(&format!("{}/secret", path(&created))).await.expect(200).json();
    let new = rotated["secret"].as_str().unwrap();
    assert_ne!(old, new);
    let rider = server.open_ride("ride_1").await.0;
    rider.send("ride_1", "one").await;
    let accepted = receiver.until_accepted("/", 1).await;
    assert!(accepted[0].is_signed_with(old) && accepted[0].is_signed_with(new));
    let left = "update webhooks set previous_until = previous_until - interval '24 hours'
                where previous_until between now() + interval '23 hours' and now() + interval '24 hours'";
    assert_eq!(database.client().await.execute(left, &[]).await.unwrap(), 1);
    rider.send("ride_1", "two").await;
    let accepted = receiver.until_accepted("/", 2).await;
    assert!(!accepted[1].is_signed_with(old) && accepted[1].is_signed_with(new));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_delivers_again_with_the_same_ids() {
    let database = Database::create().await;
    let (server, receiver) = (server(&database).await, Receiver::accepting_all().await);
    let service = server.service();
    let created = webhook(&service, &receiver, "/", &["message:new"]).await;
    let (one, two) = (server.open_ride("ride_1").await.0, server.open_ride("ride_2").await.0);
    for n in 0..3 {
        one.send("ride_1", &format!("{n}")).await;
        two.send("ride_2", &format!("{n}")).await;
    }
    receiver.until_accepted("/", 6).await;
    let delivered = eventually("delivered", async || {
        Some(deliveries(&service, &created, "state=delivered").await).filter(|delivered| delivered.len() == 6)
    })
    .await;
    // From the second event on. The first one is the last in the list.
    let after = &delivered[4]["replayAfter"];
    service.post(&format!("{}/replay", path(&created)), json!({ "after": after })).await.expect(202);
    let accepted = receiver.until_accepted("/", 11).await;
    let of = |request: &Received| (request.header("webhook-id").to_owned(), request.body.clone());
    let first: BTreeMap<_, _> = accepted[..6].iter().map(of).collect();
    let again: BTreeMap<_, _> = accepted[6..].iter().map(of).collect();
    assert_eq!(again.len(), 5);
    assert!(again.iter().all(|(id, body)| first.get(id) == Some(body)));
    assert!(!again.contains_key(delivered[5]["eventId"].as_str().unwrap()));
    assert_in_order(&accepted[6..]);

    let last = database.expire_feed(1).await;
    for (after, wrong) in [(last - 1, true), (last, false), (100_000, true)] {
        let response = service.post(&format!("{}/replay", path(&created)), json!({ "after": after.to_string() })).await;
        if wrong { drop(response.problem(409, "feed_gap")) } else { drop(response.expect(202)) }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_are_listed_in_pages() {
    let database = Database::create().await;
    let (server, receiver) = (server(&database).await, Receiver::accepting_all().await);
    let service = server.service();
    let created = webhook(&service, &receiver, "/", &["message:new"]).await;
    let rider = server.open_ride("ride_1").await.0;
    for n in 0..5 {
        rider.send("ride_1", &format!("{n}")).await;
    }
    receiver.until_accepted("/", 5).await;
    let all = eventually("delivered", async || {
        Some(deliveries(&service, &created, "state=delivered").await).filter(|delivered| delivered.len() == 5)
    })
    .await;
    let ids: Vec<_> = receiver.accepted("/").iter().rev().map(|request| json!(request.header("webhook-id"))).collect();
    assert_eq!(all.iter().map(|delivery| delivery["eventId"].clone()).collect::<Vec<_>>(), ids, "newest first");
    assert_eq!((&all[0]["attempts"], &all[0]["status"], &all[0]["error"]), (&json!(1), &json!(204), &Value::Null));
    let list = format!("{}/deliveries", path(&created));
    let page = service.get(&format!("{list}?limit=2")).await.expect(200).json();
    assert_eq!((&page["deliveries"], &page["hasMore"]), (&json!(all[..2]), &json!(true)));
    let before = all[1]["eventId"].as_str().unwrap();
    let page = service.get(&format!("{list}?before={before}&limit=3&state=delivered")).await.expect(200).json();
    assert_eq!((&page["deliveries"], &page["hasMore"]), (&json!(all[2..]), &json!(false)));
    assert_eq!(deliveries(&service, &created, "state=failed").await, Vec::<Value>::new());
    for (query, field) in [("state=new", "state"), ("before=1", "before"), ("limit=0", "limit"), ("limit=201", "limit")]
    {
        service.get(&format!("{list}?{query}")).await.invalid_field(field);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_endpoint_continues_where_it_stopped() {
    let database = Database::create().await;
    let (server, receiver) = (server(&database).await, Receiver::accepting_all().await);
    let service = server.service();
    let created = webhook(&service, &receiver, "/", &["message:new"]).await;
    let other = webhook(&service, &receiver, "/other", &["message:new"]).await;
    service.patch(&path(&created), json!({ "state": "paused" })).await.expect(200);
    let rider = server.open_ride("ride_1").await.0;
    rider.send("ride_1", "one").await;
    receiver.until_accepted("/other", 1).await;
    service.delete(&path(&other)).await.expect(204);
    service.get(&path(&other)).await.problem(404, "webhook_not_found");
    rider.send("ride_1", "two").await;
    assert_eq!(receiver.received("/").len(), 0);
    service.patch(&path(&created), json!({ "state": "active", "types": ["message.*"] })).await.expect(200);
    assert_eq!(contents(&receiver.until_accepted("/", 2).await), ["one", "two"]);
    assert_eq!(receiver.received("/other").len(), 1, "no delivery after the deletion of the endpoint");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_deleted_before_its_delivery_is_delivered_as_deleted() {
    let database = Database::create().await;
    let server = server(&database).await;
    let is_open = Arc::new(AtomicBool::new(false));
    let receiver = Receiver::start({
        let is_open = Arc::clone(&is_open);
        move |_| Reply::Status(if is_open.load(Ordering::Relaxed) { 200 } else { 503 })
    })
    .await;
    webhook(&server.service(), &receiver, "/", &["message:new", "message:deleted"]).await;
    let rider = server.open_ride("ride_1").await.0;
    let secret = rider.send("ride_1", "a secret").await;
    eventually("an attempt", async || (!receiver.received("/").is_empty()).then_some(())).await;
    rider.delete_message(&secret).await.expect(204);
    is_open.store(true, Ordering::Relaxed);
    let accepted = receiver.until_accepted("/", 2).await;
    assert_eq!(
        (&accepted[0].json()["type"], &accepted[1].json()["type"]),
        (&json!("message.new"), &json!("message.deleted"))
    );
    assert!(!accepted.iter().any(|request| request.body.contains("a secret")), "{accepted:?}");
    assert_eq!(accepted[0].json()["data"]["data"]["id"], secret["id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undeliverable_event_fails_and_the_next_one_is_delivered() {
    let database = Database::create().await;
    let settings = [SETTINGS.as_slice(), &[("RIDEWIRE_WEBHOOK_GIVE_UP", "1s")]].concat();
    let server = Server::start_with(&database, &settings).await;
    let receiver =
        Receiver::start(|request| Reply::Status(if request.body.contains("poison") { 500 } else { 200 })).await;
    let service = server.service();
    let created = webhook(&service, &receiver, "/", &["message:new"]).await;
    let (one, two) = (server.open_ride("ride_1").await.0, server.open_ride("ride_2").await.0);
    one.send("ride_1", "poison").await;
    one.send("ride_1", "after it").await;
    let failed = eventually("a dead letter", async || {
        // An endpoint that accepts some deliveries is not disabled.
        two.send("ride_2", "alive").await;
        service.patch(&path(&created), json!({ "state": "active" })).await.expect(200);
        deliveries(&service, &created, "state=failed").await.pop()
    })
    .await;
    assert_eq!((&failed["status"], &failed["nextAttemptAt"]), (&json!(500), &Value::Null), "{failed}");
    assert!(failed["attempts"].as_i64().unwrap() > 1, "{failed}");
    eventually("the next one", async || {
        contents(&receiver.accepted("/")).contains(&"after it".to_owned()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_fails_for_too_long_is_disabled() {
    let database = Database::create().await;
    let settings = [SETTINGS.as_slice(), &[("RIDEWIRE_WEBHOOK_GIVE_UP", "1s")]].concat();
    let server = Server::start_with(&database, &settings).await;
    let is_open = Arc::new(AtomicBool::new(false));
    let receiver = Receiver::start({
        let is_open = Arc::clone(&is_open);
        move |_| Reply::Status(if is_open.load(Ordering::Relaxed) { 200 } else { 500 })
    })
    .await;
    let service = server.service();
    let created = webhook(&service, &receiver, "/", &["message:new"]).await;
    let rider = server.open_ride("ride_1").await.0;
    rider.send("ride_1", "one").await;
    rider.send("ride_1", "two").await;
    eventually("disabled", async || (state_of(&service, &created).await == "disabled").then_some(())).await;
    is_open.store(true, Ordering::Relaxed);
    rider.send("ride_1", "three").await;
    service.patch(&path(&created), json!({ "state": "active" })).await.expect(200);
    let contents = eventually("the rest", async || {
        Some(contents(&receiver.accepted("/"))).filter(|contents| contents.contains(&"three".to_owned()))
    })
    .await;
    assert!(contents.ends_with(&["two".to_owned(), "three".to_owned()]), "{contents:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_arrive_in_order_although_replicas_are_killed_and_attempts_fail() {
    let database = Database::create().await;
    let survivor = server(&database).await;
    let count = Arc::new(AtomicUsize::new(0));
    let receiver = Receiver::start({
        let count = Arc::clone(&count);
        move |_| match count.fetch_add(1, Ordering::Relaxed) % 7 {
            2 => Reply::Status(500),
            4 => Reply::Header(429, "retry-after", "0".to_owned()),
            _ => Reply::Status(200),
        }
    })
    .await;
    let service = survivor.service();
    let created = webhook(&service, &receiver, "/", &["*"]).await;
    let client = database.client().await;
    for round in 0..3 {
        let killed = server(&database).await;
        let before = receiver.received("/").len();
        let rides: Vec<_> = (0..4).map(|n| format!("ride_{round}_{n}")).collect();
        let sends = rides.iter().map(async |ride| {
            let rider = survivor.open_ride(ride).await.0;
            for n in 0..10 {
                rider.send(ride, &format!("{n}")).await;
            }
        });
        tokio::join!(futures_util::future::join_all(sends), async {
            eventually("deliveries", async || (receiver.received("/").len() > before + 10).then_some(())).await;
            killed.kill().await;
        });
        // As if the leases of the killed replica had expired.
        let expire = "update webhook_queues set due_at = now() where lease is not null";
        client.execute(expire, &[]).await.unwrap();
    }
    let all = eventually("everything delivered", async || {
        let counted =
            "select (select count(*) from events), (select count(*) from webhook_deliveries where state = 'delivered')";
        let row = client.query_one(counted, &[]).await.unwrap();
        let (events, delivered): (i64, i64) = (row.get(0), row.get(1));
        (events == delivered).then_some(events)
    })
    .await;
    assert_eq!(deliveries(&service, &created, "state=pending").await, Vec::<Value>::new());
    let accepted = receiver.accepted("/");
    assert_in_order(&accepted);
    let log_positions: BTreeSet<_> = accepted.iter().map(Received::log_position).collect();
    assert_eq!(i64::try_from(log_positions.len()).unwrap(), all, "no event is lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_server_releases_its_deliveries() {
    let database = Database::create().await;
    let server_one = server(&database).await;
    let is_first = Arc::new(AtomicBool::new(true));
    let receiver = Receiver::start({
        let is_first = Arc::clone(&is_first);
        move |_| if is_first.swap(false, Ordering::Relaxed) { Reply::Never } else { Reply::Status(200) }
    })
    .await;
    webhook(&server_one.service(), &receiver, "/", &["message:new"]).await;
    server_one.open_ride("ride_1").await.0.send("ride_1", "Hello").await;
    eventually("an attempt", async || (!receiver.received("/").is_empty()).then_some(())).await;
    assert!(server_one.terminate().await.success());
    let held = "select from webhook_queues where lease is not null";
    assert!(database.client().await.query(held, &[]).await.unwrap().is_empty());
    let _two = server(&database).await;
    let accepted = receiver.until_accepted("/", 1).await;
    assert_eq!(accepted[0].header("webhook-id"), receiver.received("/")[0].header("webhook-id"));
}
