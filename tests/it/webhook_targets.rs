//! Webhook endpoints: who manages them, their validation, and the addresses that they may have.

use serde_json::{Value, json};

use crate::support::{Database, Receiver, Reply, Server, User, eventually};

async fn create(service: &User, url: &str) -> String {
    let created = service.post("webhooks", json!({ "url": url })).await.expect(201).json();
    format!("webhooks/{}", created["id"].as_str().unwrap())
}

async fn test(service: &User, path: &str) -> Value {
    service.post_empty(&format!("{path}/test")).await.expect(200).json()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_service_manages_webhooks_and_only_if_the_feed_is_enabled() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    for other in [server.rider("rider_1"), server.driver("driver_1"), server.support()] {
        other.get("webhooks").await.problem(403, "forbidden");
        other.post("webhooks", json!({ "url": "https://example.com/" })).await.problem(403, "forbidden");
        other.get("webhooks/wh_1/deliveries").await.problem(403, "forbidden");
        other.post("webhooks/wh_1/replay", json!({ "after": "0" })).await.problem(403, "forbidden");
    }
    let service = server.service();
    for path in ["secret", "test"] {
        service.post_empty(&format!("webhooks/wh_1/{path}")).await.problem(404, "webhook_not_found");
    }
    service.get("webhooks/wh_1").await.problem(404, "webhook_not_found");
    service.get("webhooks/wh_1/deliveries").await.problem(404, "webhook_not_found");
    service.patch("webhooks/wh_1", json!({})).await.problem(404, "webhook_not_found");
    service.delete("webhooks/wh_1").await.problem(404, "webhook_not_found");
    service.post("webhooks/wh_1/replay", json!({ "after": "0" })).await.problem(404, "webhook_not_found");
    let off = Server::start_with(&database, &[("RIDEWIRE_FEED", "off")]).await;
    off.service().get("webhooks").await.problem(404, "not_found");
    off.service().post("webhooks", json!({ "url": "https://example.com/" })).await.problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_invalid_field_of_a_webhook_is_named() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let service = server.service();
    let good = "https://example.com/";
    let urls = [
        json!(null),
        json!(1),
        json!(""),
        json!("http://example.com/"),
        json!("https://127.0.0.1/"),
        json!("https://[::1]/"),
        json!("https://169.254.169.254/latest/meta-data"),
        json!("https://localhost:8080/"),
        json!("https://user:password@example.com/"),
        json!("https://[::ffff:10.0.0.1]/"),
        json!("file:///etc/passwd"),
    ];
    for url in urls {
        service.post("webhooks", json!({ "url": url })).await.invalid_field("/url");
    }
    service.post("webhooks", json!({})).await.invalid_field("/url");
    service.post("webhooks", json!({ "url": good, "types": [] })).await.invalid_field("/types");
    service.post("webhooks", json!({ "url": good, "types": vec!["a"; 51] })).await.invalid_field("/types");
    service.post("webhooks", json!({ "url": good, "types": ["message:new", "m*x"] })).await.invalid_field("/types/1");
    let long = "x".repeat(501);
    service.post("webhooks", json!({ "url": good, "description": long })).await.invalid_field("/description");
    service.post("webhooks", json!({ "url": good, "secret": "mine" })).await.problem(400, "invalid_request");
    let path = create(&service, good).await;
    service.patch(&path, json!({ "url": "http://example.com/" })).await.invalid_field("/url");
    service.patch(&path, json!({ "state": "disabled" })).await.invalid_field("/state");
    service.patch(&path, json!({ "types": ["%"] })).await.invalid_field("/types/0");
    for after in [json!(null), json!("x"), json!(""), json!(-1), json!("-1")] {
        service.post(&format!("{path}/replay"), json!({ "after": after })).await.invalid_field("/after");
    }
    let changed =
        json!({ "url": "https://example.org/x", "types": ["ride:*"], "description": "Rides", "state": "paused" });
    let updated = service.patch(&path, changed.clone()).await.expect(200).json();
    for (name, value) in changed.as_object().unwrap() {
        assert_eq!(updated[name], *value, "{updated}");
    }
    let updated = service.patch(&path, json!({ "description": null })).await.expect(200).json();
    assert_eq!((&updated["description"], &updated["url"]), (&Value::Null, &json!("https://example.org/x")));
    assert_eq!(service.get("webhooks").await.expect(200).json()["webhooks"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_host_name_reaches_a_non_public_address() {
    let database = Database::create().await;
    let server = Server::start(&database).await;
    let service = server.service();
    let receiver = Receiver::accepting_all().await;
    let port = receiver.base.rsplit(':').next().unwrap();
    // Host names that resolve to non-public addresses.
    for name in ["2130706433", "0x7f000001", "0177.0.0.1", "127.1"] {
        let path = create(&service, &format!("https://{name}:{port}/")).await;
        let tested = test(&service, &path).await;
        assert_eq!(tested["status"], Value::Null, "{name}: {tested}");
        assert!(tested["error"].as_str().unwrap().contains("not allowed"), "{name}: {tested}");
    }
    assert_eq!(receiver.received("/").len(), 0);
    // An allowed host is matched by its name, not by its address.
    let allowing = Server::start_with(&database, &[("RIDEWIRE_WEBHOOK_ALLOW_HOSTS", "127.0.0.1, receiver.test")]).await;
    let service = allowing.service();
    let path = create(&service, &format!("https://2130706433:{port}/")).await;
    assert!(test(&service, &path).await["error"].as_str().unwrap().contains("not allowed"));
    let path = create(&service, &receiver.base).await;
    let tested = test(&service, &path).await;
    assert_eq!((&tested["status"], &tested["error"]), (&json!(204), &Value::Null));
    let received = receiver.received("/");
    assert_eq!((received.len(), &received[0].json()["type"]), (1, &json!("webhook.test")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects_are_not_followed() {
    let database = Database::create().await;
    let server = Server::start_with(&database, &[("RIDEWIRE_WEBHOOK_ALLOW_HOSTS", "127.0.0.1")]).await;
    let service = server.service();
    let receiver = Receiver::start(|request| match request.path.as_str() {
        "/" => Reply::Header(307, "location", "/elsewhere".to_owned()),
        _ => Reply::Status(200),
    })
    .await;
    let path = create(&service, &receiver.base).await;
    let tested = test(&service, &path).await;
    assert_eq!(tested["status"], 307);
    assert!(tested["error"].as_str().unwrap().contains("redirects are not followed"), "{tested}");
    server.open_ride("ride_1").await;
    eventually("an attempt", async || {
        let page = service.get(&format!("{path}/deliveries?state=pending")).await.expect(200).json();
        page["deliveries"].as_array()?.iter().find(|delivery| delivery["status"] == 307).cloned()
    })
    .await;
    assert_eq!(receiver.received("/elsewhere").len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn event_types_are_accepted_in_both_notations() {
    let database = Database::create().await;
    let server = Server::start_with(&database, &[("RIDEWIRE_WEBHOOK_ALLOW_HOSTS", "127.0.0.1")]).await;
    let (service, receiver) = (server.service(), Receiver::accepting_all().await);
    let endpoints =
        [("/colon", "message:new"), ("/dot", "message.new"), ("/prefix", "message.*"), ("/rides", "ride:*")];
    for (path, types) in endpoints {
        let url = format!("{}{path}", receiver.base);
        service.post("webhooks", json!({ "url": url, "types": [types] })).await.expect(201);
    }
    let (rider, driver) = server.open_ride("ride_1").await;
    let sent = rider.send("ride_1", "Hello").await;
    driver.mark(&sent, "read").await.expect(200);
    rider.post_empty("rides/ride_1/cancel").await.expect(200);
    receiver.until_accepted("/rides", 2).await;
    let types = async |path: &str, count| {
        let accepted = receiver.until_accepted(path, count).await;
        accepted.iter().map(|request| request.json()["type"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(types("/colon", 1).await, ["message.new"]);
    assert_eq!(types("/dot", 1).await, ["message.new"]);
    assert_eq!(types("/prefix", 2).await, ["message.new", "message.read"]);
    assert!(types("/rides", 2).await.iter().all(|name| name.starts_with("ride.")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_certificate_of_a_tls_endpoint_is_verified() {
    let database = Database::create().await;
    let directory = tempfile::tempdir().unwrap();
    let authority = directory.path().join("authority.pem");
    let receiver = Receiver::start_tls(&authority, |_| Reply::Status(200)).await;
    let allowed = ("RIDEWIRE_WEBHOOK_ALLOW_HOSTS", "localhost");
    let server = Server::start_with(&database, &[allowed, ("SSL_CERT_FILE", authority.to_str().unwrap())]).await;
    let service = server.service();
    let url = format!("{}/events", receiver.base);
    assert!(url.starts_with("https://"), "{url}");
    let created = service.post("webhooks", json!({ "url": url, "types": ["message:new"] })).await.expect(201).json();
    let rider = server.open_ride("ride_1").await.0;
    rider.send("ride_1", "Hello").await;
    let accepted = receiver.until_accepted("/events", 1).await;
    assert_eq!(accepted[0].json()["data"]["data"]["content"], "Hello");
    assert!(accepted[0].is_signed_with(created["secret"].as_str().unwrap()));

    // The certificate is verified: a server that does not trust it sends nothing.
    let other = Database::create().await;
    let untrusting = Server::start_with(&other, &[allowed]).await;
    let path = create(&untrusting.service(), &format!("{}/untrusting", receiver.base)).await;
    let tested = test(&untrusting.service(), &path).await;
    assert!(tested["status"].is_null() && tested["error"].as_str().unwrap().contains("certificate"), "{tested}");
    assert!(receiver.received("/untrusting").is_empty());
}
