//! Web Push: subscriptions, and pushes for undelivered messages.

mod browser;
mod subscriptions;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use self::browser::Browser;
use crate::metrics::scrape;
use crate::support::{Database, Received, Receiver, Reply, Server, eventually};

/// Settings that allow receivers on this machine.
const SETTINGS: [(&str, &str); 3] =
    [("RIDEWIRE_PUSH_AFTER", "1s"), ("RIDEWIRE_WEBHOOK_ALLOW_HOSTS", "127.0.0.1"), ("RIDEWIRE_FALLBACK_POLL", "500ms")];

async fn server(database: &Database) -> Server {
    Server::start_with(database, &SETTINGS).await
}

/// Returns the number of pushes that are queued.
async fn waiting(database: &Database) -> i64 {
    database.client().await.query_one("select count(*) from pushes", &[]).await.unwrap().get(0)
}

async fn execute(database: &Database, statement: &str) -> u64 {
    database.client().await.execute(statement, &[]).await.unwrap()
}

/// Waits until this replica has counted this many pushes with an outcome.
async fn wait_for_count(server: &Server, outcome: &str, count: f64) {
    let name = format!("ridewire_pushes_total{{outcome=\"{outcome}\"}}");
    eventually("pushes are counted", async || (scrape(server).await[&name] >= count).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undelivered_message_is_pushed_to_each_browser_of_its_recipient_only() {
    let database = Database::create().await;
    let subject = ("RIDEWIRE_VAPID_SUBJECT", "mailto:operations@example.com");
    let server = Server::start_with(&database, &[&SETTINGS[..], &[subject]].concat()).await;
    let receiver = Receiver::accepting_all().await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let phone = Browser::registered(&receiver, "/phone", &driver).await;
    let tablet = Browser::registered(&receiver, "/tablet", &driver).await;
    let own = Browser::registered(&receiver, "/own", &rider).await;
    let key = driver.get("push-key").await.expect(200).json()["publicKey"].as_str().unwrap().to_owned();
    let sent = rider.send("ride_1", "a secret message of the rider").await;
    rider.send("ride_1", "and another").await;
    for browser in [&phone, &tablet] {
        let pushes = receiver.until_accepted(&browser.path, 1).await;
        let payload = browser.read(&pushes[0]);
        let expected = json!({ "type": "message:undelivered", "rideId": "ride_1", "messageId": sent["id"], "unreadCount": payload["unreadCount"] });
        assert_eq!(payload, expected);
        assert!((1..=2).contains(&payload["unreadCount"].as_i64().unwrap()), "{payload}");
        assert_eq!(browser.verify(&pushes[0], &key)["sub"], "mailto:operations@example.com");
        assert_eq!(pushes[0].header("urgency"), "high");
        assert!((86_000..=86_400).contains(&pushes[0].header("ttl").parse::<u64>().unwrap()));
        let topic = pushes[0].header("topic");
        assert!(topic.len() == 32 && topic.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
    }
    let topic = |path: &str| receiver.received(path)[0].header("topic").to_owned();
    assert_ne!(topic("/phone"), topic("/tablet"), "topics must not reveal shared rides");

    // The watermark moved, and a later message is still undelivered: the next push replaces the first one.
    driver.mark(&sent, "delivered").await.expect(200);
    let pushes = receiver.until_accepted("/phone", 2).await;
    assert_eq!(phone.read(&pushes[1])["unreadCount"], 2);
    assert_eq!(pushes[1].header("topic"), pushes[0].header("topic"));
    // A push of another ride does not replace it.
    server.open_ride("ride_2").await.0.send("ride_2", "Hello").await;
    let pushes = receiver.until_accepted("/phone", 3).await;
    assert_eq!(phone.read(&pushes[2])["rideId"], "ride_2");
    assert_ne!(pushes[2].header("topic"), pushes[0].header("topic"));
    // A user gets no push for an own message.
    assert_eq!(receiver.received(&own.path).len(), 0);
    driver.send("ride_2", "Hello").await;
    let pushes = receiver.until_accepted("/own", 1).await;
    assert_eq!(own.read(&pushes[0])["rideId"], "ride_2");
    assert!(pushes.iter().all(|push| !push.body.contains("secret")));
    eventually("the queue is empty", async || (waiting(&database).await == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_delivered_or_deleted_before_the_delay_is_not_pushed() {
    let database = Database::create().await;
    let server = Server::start_with(&database, &[("RIDEWIRE_PUSH_AFTER", "4s"), SETTINGS[1], SETTINGS[2]]).await;
    let receiver = Receiver::accepting_all().await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let browser = Browser::registered(&receiver, "/", &driver).await;
    driver.mark(&rider.send("ride_1", "One").await, "delivered").await.expect(200);
    rider.delete_message(&rider.send("ride_1", "Two").await).await.expect(204);
    // A polling client acknowledges by its cursor.
    let polled = rider.send("ride_1", "Three").await;
    driver.poll("ride_1", &format!("after={}&wait=0", polled["seq"])).await;
    // Due after everything before it.
    server.open_ride("ride_2").await.0.send("ride_2", "a marker").await;
    let pushes = receiver.until_accepted("/", 1).await;
    assert_eq!((pushes.len(), &browser.read(&pushes[0])["rideId"]), (1, &json!("ride_2")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_delivered_or_deleted_before_a_retry_is_not_pushed_again() {
    let database = Database::create().await;
    let server = server(&database).await;
    let is_unavailable = Arc::new(AtomicBool::new(true));
    let receiver = Receiver::start({
        let is_unavailable = Arc::clone(&is_unavailable);
        move |_| Reply::Status(if is_unavailable.load(Ordering::Relaxed) { 503 } else { 201 })
    })
    .await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let browser = Browser::registered(&receiver, "/", &driver).await;
    let delivered = rider.send("ride_1", "One").await;
    server.open_ride("ride_2").await;
    let deleted = rider.send("ride_2", "Two").await;
    server.open_ride("ride_3").await;
    rider.send("ride_3", "Three").await;
    wait_for_count(&server, "retried", 3.0).await;
    driver.mark(&delivered, "delivered").await.expect(200);
    rider.delete_message(&deleted).await.expect(204);
    is_unavailable.store(false, Ordering::Relaxed);
    execute(&database, "update pushes set due_at = now() where lease is null").await;
    let pushes = receiver.until_accepted("/", 1).await;
    eventually("the queue is empty", async || (waiting(&database).await == 0).then_some(())).await;
    wait_for_count(&server, "skipped", 2.0).await;
    assert_eq!((receiver.accepted("/").len(), &browser.read(&pushes[0])["rideId"]), (1, &json!("ride_3")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_share_the_pushes() {
    let database = Database::create().await;
    let (server, other) = (server(&database).await, server(&database).await);
    let receiver = Receiver::accepting_all().await;
    let browser = Browser::registered(&receiver, "/", &other.driver("driver_1")).await;
    let key = |server: &Server| server.driver("driver_1");
    assert_eq!(
        key(&server).get("push-key").await.expect(200).json(),
        key(&other).get("push-key").await.expect(200).json()
    );
    let rides: BTreeSet<_> = (0..20).map(|n| format!("ride_{n}")).collect();
    for (ride, at) in rides.iter().zip([&server, &other].into_iter().cycle()) {
        at.open_ride(ride).await.0.send(ride, "Hello").await;
    }
    receiver.until_accepted("/", rides.len()).await;
    eventually("the queue is empty", async || (waiting(&database).await == 0).then_some(())).await;
    let pushed: Vec<_> =
        receiver.accepted("/").iter().map(|push| browser.read(push)["rideId"].as_str().unwrap().to_owned()).collect();
    assert_eq!(pushed.len(), rides.len(), "none twice");
    assert_eq!(pushed.into_iter().collect::<BTreeSet<_>>(), rides);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_replica_takes_over_the_pushes_of_a_killed_one() {
    let database = Database::create().await;
    let is_silent = Arc::new(AtomicBool::new(true));
    let receiver = Receiver::start({
        let is_silent = Arc::clone(&is_silent);
        move |_| if is_silent.load(Ordering::Relaxed) { Reply::Never } else { Reply::Status(201) }
    })
    .await;
    let killed = server(&database).await;
    let (rider, driver) = killed.open_ride("ride_1").await;
    let browser = Browser::registered(&receiver, "/", &driver).await;
    let sent = rider.send("ride_1", "Hello").await;
    eventually("the push is in flight", async || Some(()).filter(|()| !receiver.received("/").is_empty())).await;
    killed.kill().await;
    is_silent.store(false, Ordering::Relaxed);
    let other = server(&database).await;
    assert_eq!(waiting(&database).await, 1);
    execute(&database, "update pushes set due_at = now()").await;
    let pushes = receiver.until_accepted("/", 1).await;
    assert_eq!(browser.read(&pushes[0])["messageId"], sent["id"]);
    wait_for_count(&other, "sent", 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_became_undelivered_during_an_outage_are_pushed() {
    let database = Database::create().await;
    let receiver = Receiver::accepting_all().await;
    let killed = Server::start_with(&database, &[("RIDEWIRE_PUSH_AFTER", "1h"), SETTINGS[1], SETTINGS[2]]).await;
    let (rider, driver) = killed.open_ride("ride_1").await;
    let browser = Browser::registered(&receiver, "/", &driver).await;
    let (one, two) =
        (rider.send("ride_1", "One").await, killed.open_ride("ride_2").await.0.send("ride_2", "Two").await);
    driver.mark(&one, "read").await.expect(200);
    killed.kill().await;
    let _other = server(&database).await;
    let pushes = receiver.until_accepted("/", 1).await;
    assert_eq!((pushes.len(), &browser.read(&pushes[0])["messageId"]), (1, &two["id"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_its_push_service_no_longer_has_is_removed() {
    let database = Database::create().await;
    let server = server(&database).await;
    let receiver = Receiver::start(|request| {
        Reply::Status(match request.path.as_str() {
            "/gone" => 410,
            "/unknown" => 404,
            "/wrong" => 403,
            _ => 201,
        })
    })
    .await;
    let (rider, driver) = server.open_ride("ride_1").await;
    for path in ["/gone", "/unknown", "/wrong", "/good"] {
        Browser::registered(&receiver, path, &driver).await;
    }
    rider.send("ride_1", "Hello").await;
    receiver.until_accepted("/good", 1).await;
    wait_for_count(&server, "gone", 2.0).await;
    wait_for_count(&server, "rejected", 1.0).await;
    eventually("the queue is empty", async || (waiting(&database).await == 0).then_some(())).await;
    let left = "select endpoint from push_subscriptions order by endpoint";
    let left: Vec<String> =
        database.client().await.query(left, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(left, ["/good", "/wrong"].map(|path| format!("{}{path}", receiver.base)));
    let log = server.log();
    assert_eq!(log.matches("push subscription removed").count(), 2, "{log}");
    assert!(log.contains("driver_1") && !log.contains("/gone"), "an endpoint must not be logged: {log}");
    assert_eq!(receiver.received("/wrong").len(), 1, "a rejected push is not retried");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_is_retried_after_its_retry_after_until_it_expires() {
    let database = Database::create().await;
    let server = server(&database).await;
    let receiver = Receiver::start(|request| match request.path.as_str() {
        "/busy" => Reply::Header(429, "retry-after", "1000".to_owned()),
        "/never" => Reply::Header(503, "retry-after", "100000".to_owned()),
        _ => Reply::Status(500),
    })
    .await;
    let (rider, driver) = server.open_ride("ride_1").await;
    for path in ["/busy", "/never", "/broken"] {
        Browser::registered(&receiver, path, &driver).await;
    }
    let sent = rider.send("ride_1", "Hello").await;
    wait_for_count(&server, "retried", 2.0).await;
    // Longer than the ttl of the push.
    wait_for_count(&server, "expired", 1.0).await;
    let due = "select count(*) from pushes where lease is null and due_at > now() + interval '900 s'";
    let count = async |query: &str| database.client().await.query_one(query, &[]).await.unwrap().get::<_, i64>(0);
    assert_eq!((count(due).await, waiting(&database).await), (1, 2));
    // A later event does not send it earlier.
    rider.send("ride_1", "Are you there?").await;
    driver.mark(&sent, "delivered").await.expect(200);
    let again = "select count(*) from feed where type = 'message:undelivered'";
    eventually("the next event", async || (count(again).await >= 2).then_some(())).await;
    assert_eq!(count(due).await, 1);
    wait_for_count(&server, "expired", 2.0).await;
    assert_eq!((receiver.received("/busy").len(), receiver.received("/never").len()), (1, 2));
    execute(&database, "update pushes set created_at = now() - interval '25 h', due_at = now()").await;
    eventually("the push expires", async || (waiting(&database).await == 0).then_some(())).await;
    assert_eq!(receiver.received("/busy").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unresponsive_push_service_delays_no_other() {
    let database = Database::create().await;
    let server = server(&database).await;
    let unresponsive = Receiver::start(|_| Reply::Never).await;
    let receiver = Receiver::accepting_all().await;
    let driver = server.driver("driver_1");
    Browser::registered(&unresponsive, "/", &driver).await;
    let browser = Browser::registered(&receiver, "/", &driver).await;
    // More rides than concurrent requests per push service.
    let rides: Vec<_> = (0..40).map(|n| format!("ride_{n}")).collect();
    for ride in &rides {
        server.open_ride(ride).await.0.send(ride, "Hello").await;
    }
    let pushes = receiver.until_accepted("/", rides.len()).await;
    let pushed: BTreeSet<_> = pushes.iter().map(|push: &Received| browser.read(push)["rideId"].to_string()).collect();
    assert_eq!(pushed.len(), rides.len());
    assert!(!unresponsive.received("/").is_empty());
}
