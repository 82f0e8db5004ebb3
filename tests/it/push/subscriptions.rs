//! Web Push subscriptions: who can create them, their validation, and their owner.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::browser::Browser;
use super::{SETTINGS, execute, server, wait_for_count, waiting};
use crate::support::{Database, Receiver, Reply, Response, Server, User, eventually, ridewire};

async fn delete(user: &User, body: Value) -> Response {
    user.send_bytes(Method::DELETE, "push-subscriptions", body.to_string()).await
}

async fn count(database: &Database) -> i64 {
    database.client().await.query_one("select count(*) from push_subscriptions", &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_role_can_subscribe_its_own_user_if_web_push_is_enabled() {
    let database = Database::create().await;
    let (server, receiver) = (server(&database).await, Receiver::accepting_all().await);
    let users = [server.rider("rider_1"), server.driver("driver_1"), server.support(), server.service()];
    let key = users[0].get("push-key").await.expect(200).json();
    assert_eq!(key["publicKey"].as_str().unwrap().len(), 87, "65 bytes: {key}");
    for (place, user) in users.iter().enumerate() {
        assert_eq!(user.get("push-key").await.expect(200).json(), key);
        let browser = Browser::registered(&receiver, &format!("/{place}"), user).await;
        browser.register(user).await;
    }
    assert_eq!(count(&database).await, 4, "a repeated registration creates no second subscription");
    let endpoint = json!({ "endpoint": format!("{}/0", receiver.base) });
    delete(&users[1], endpoint.clone()).await.expect(204);
    assert_eq!(count(&database).await, 4, "the subscription has moved to the other user");
    for _ in 0..2 {
        delete(&users[0], endpoint.clone()).await.expect(204);
        assert_eq!(count(&database).await, 3);
    }
    for off in [("RIDEWIRE_PUSH_AFTER", "0s"), ("RIDEWIRE_FEED", "off")] {
        let without = Server::start_with(&database, &[off, SETTINGS[1]]).await;
        let rider = without.rider("rider_1");
        rider.get("push-key").await.problem(404, "not_found");
        rider.put("push-subscriptions", Browser::new(&receiver, "/").subscription()).await.problem(404, "not_found");
        delete(&rider, endpoint.clone()).await.problem(404, "not_found");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_invalid_field_of_a_subscription_is_named() {
    let database = Database::create().await;
    let (server, receiver) = (Server::start(&database).await, Receiver::accepting_all().await);
    let rider = server.rider("rider_1");
    let good = {
        let mut good = Browser::new(&receiver, "/").subscription();
        good["endpoint"] = json!("https://push.example/send/1");
        good
    };
    let with = |pointer: &str, value: Value| {
        let mut body = good.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        body.pointer_mut(parent).unwrap()[name] = value;
        body
    };
    let put = async |body: Value| rider.put("push-subscriptions", body).await;
    let long = format!("https://push.example/{}", "x".repeat(2_048));
    let endpoints = [
        "",
        "push",
        "http://push.example/",
        "https://localhost/",
        "https://127.0.0.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://user@push.example/",
        &long,
    ];
    for endpoint in endpoints {
        put(with("/endpoint", json!(endpoint))).await.invalid_field("/endpoint");
    }
    for value in [json!(null), json!(1)] {
        put(with("/endpoint", value.clone())).await.invalid_field("/endpoint");
        put(with("/keys", value)).await.invalid_field("/keys");
    }
    let p256dh = good["keys"]["p256dh"].as_str().unwrap();
    let compressed = format!("A{}", &p256dh[1..]);
    for key in [json!(null), json!(""), json!("no key"), json!(&p256dh[..86]), json!(compressed), json!("B".repeat(87))]
    {
        put(with("/keys/p256dh", key)).await.invalid_field("/keys/p256dh");
    }
    for auth in [json!(null), json!(""), json!("AAAA"), json!("A".repeat(24))] {
        put(with("/keys/auth", auth)).await.invalid_field("/keys/auth");
    }
    for time in [json!(-1), json!("soon"), json!(1e300)] {
        put(with("/expirationTime", time)).await.invalid_field("/expirationTime");
    }
    put(with("/keys/p384", json!(""))).await.problem(400, "invalid_request");
    put(with("/userId", json!("rider_2"))).await.problem(400, "invalid_request");
    put(json!({})).await.invalid_field("/keys");
    for body in [json!({}), json!({ "endpoint": null }), json!({ "endpoint": 1 }), json!({ "endpoint": "\0" })] {
        delete(&rider, body).await.invalid_field("/endpoint");
    }
    assert_eq!(count(&database).await, 0);
    put(with("/keys/auth", json!(format!("{}==", good["keys"]["auth"].as_str().unwrap())))).await.expect(204);
    put(with("/expirationTime", json!(8.64e15))).await.expect(204);
    assert_eq!(count(&database).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_keeps_the_twenty_latest_subscriptions() {
    let database = Database::create().await;
    let (server, receiver) = (server(&database).await, Receiver::accepting_all().await);
    let driver = server.driver("driver_1");
    Browser::registered(&receiver, "/other", &server.driver("driver_2")).await;
    for n in 0..25 {
        Browser::registered(&receiver, &format!("/{n}"), &driver).await;
    }
    assert_eq!(count(&database).await, 21);
    server.open_ride("ride_1").await.0.send("ride_1", "Hello").await;
    receiver.until_accepted("/24", 1).await;
    receiver.until_accepted("/5", 1).await;
    eventually("the queue is empty", async || (waiting(&database).await == 0).then_some(())).await;
    assert_eq!(receiver.received("/4").len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_belongs_to_the_last_user_who_registered_it() {
    let database = Database::create().await;
    let server = server(&database).await;
    let receiver = Receiver::start(|request| Reply::Status(if request.path == "/away" { 503 } else { 201 })).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let (shared, away) =
        (Browser::registered(&receiver, "/", &driver).await, Browser::registered(&receiver, "/away", &driver).await);
    rider.send("ride_1", "for driver_1").await;
    receiver.until_accepted("/", 1).await;
    wait_for_count(&server, "retried", 1.0).await;
    // Another user signs in in the same browser.
    let next = server.driver("driver_2");
    shared.register(&next).await;
    away.register(&next).await;
    execute(&database, "update pushes set due_at = now()").await;
    wait_for_count(&server, "skipped", 1.0).await;
    assert_eq!(receiver.received("/away").len(), 1, "a queued push is for the previous user");
    server.open_ride("ride_2").await.0.send("ride_2", "for driver_1").await;
    server.service().put_ride("ride_3", "rider_1", Some("driver_2")).await.expect(201);
    rider.send("ride_3", "for driver_2").await;
    let pushes = receiver.until_accepted("/", 2).await;
    assert_eq!((pushes.len(), &shared.read(&pushes[1])["rideId"]), (2, &json!("ride_3")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_are_deleted_on_erasure_and_on_expiry() {
    let database = Database::create().await;
    let server =
        Server::start_with(&database, &[&SETTINGS[..], &[("RIDEWIRE_RETENTION_PERIOD", "200ms")]].concat()).await;
    let receiver = Receiver::accepting_all().await;
    for user in ["rider_1", "rider_2", "rider_3"] {
        Browser::registered(&receiver, &format!("/{user}"), &server.rider(user)).await;
    }
    server.service().delete("users/rider_2").await.expect(200);
    let mut expiring = Browser::new(&receiver, "/rider_3").subscription();
    let soon = ridewire::domain::Time::now().plus(Duration::from_secs(1)).timestamp().as_millisecond();
    expiring["expirationTime"] = json!(soon);
    server.rider("rider_3").put("push-subscriptions", expiring).await.expect(204);
    eventually("one subscription remains", async || (count(&database).await == 1).then_some(())).await;
    let left = database.client().await.query_one("select user_id from push_subscriptions", &[]).await.unwrap();
    assert_eq!(left.get::<_, String>(0), "rider_1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_subscription_reaches_a_non_public_address() {
    let database = Database::create().await;
    let server = Server::start_with(&database, &[SETTINGS[0], SETTINGS[2]]).await;
    let receiver = Receiver::accepting_all().await;
    let (rider, driver) = server.open_ride("ride_1").await;
    // A host name that resolves to a non-public address.
    let mut subscription = Browser::new(&receiver, "/").subscription();
    subscription["endpoint"] = json!(format!("https://2130706433:{}/", receiver.base.rsplit(':').next().unwrap()));
    driver.put("push-subscriptions", subscription).await.expect(204);
    rider.send("ride_1", "Hello").await;
    wait_for_count(&server, "retried", 1.0).await;
    assert_eq!(receiver.received("/").len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configured_vapid_key_is_used_and_an_invalid_one_is_not_printed() {
    // The key of the application server in RFC 8291, section 5.
    let key = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw";
    let database = Database::create().await;
    let (receiver, settings) =
        (Receiver::accepting_all().await, [&SETTINGS[..], &[("RIDEWIRE_VAPID_KEY", key)]].concat());
    let server = Server::start_with(&database, &settings).await;
    let (rider, driver) = server.open_ride("ride_1").await;
    let public = driver.get("push-key").await.expect(200).json()["publicKey"].as_str().unwrap().to_owned();
    assert_eq!(public, "BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8");
    let browser = Browser::registered(&receiver, "/", &driver).await;
    rider.send("ride_1", "Hello").await;
    let claims = browser.verify(&receiver.until_accepted("/", 1).await[0], &public);
    assert_eq!(claims.get("sub"), None, "no contact is configured");
    for (setting, value) in [("RIDEWIRE_VAPID_KEY", "a-secret-typo"), ("RIDEWIRE_VAPID_SUBJECT", "operations")] {
        let mut command = ridewire();
        command.arg("serve").env("DATABASE_URL", &database.url).env("RIDEWIRE_JWT_SECRET", crate::support::SECRET);
        let output = command.env("RIDEWIRE_LISTEN", "127.0.0.1:0").env(setting, value).output().await.unwrap();
        let output_text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!output.status.success() && output_text.contains(setting), "{output_text}");
        assert!(!output_text.contains("a-secret-typo"), "{output_text}");
    }
}
